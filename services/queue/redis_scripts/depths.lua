-- ARGV: time. Answers [whether something due is not counted right yet, rows]; a row is
-- [fn, waiting, leased, when the oldest that waits was pushed (or "")].

even_when_full()
if promote() then
  return {1, {}}
end
local rows = {}
local counts = redis.call('HGETALL', FNS)
for i = 1, #counts, 2 do
  local fn, all = counts[i], tonumber(counts[i + 1])
  local queued = redis.call('ZCARD', waiting(fn))
  local oldest = redis.call('ZRANGE', waiting(fn), 0, 0, 'WITHSCORES')
  rows[#rows + 1] = {fn, queued, all - queued, oldest[2] or ''}
end
return {0, rows}
