-- ARGV: time, then functions; without any it is about all that have something in the queue. Answers
-- [whether something due is not counted right yet, rows]; a row is
-- [fn, waiting, leased, when the oldest that waits was pushed (or "")].

even_when_full()
if promote() then
  return {1, {}}
end
local rows = {}
local function count(fn, all)
  local queued = redis.call('ZCARD', waiting(fn))
  local oldest = redis.call('ZRANGE', waiting(fn), 0, 0, 'WITHSCORES')
  rows[#rows + 1] = {fn, queued, all - queued, oldest[2] or ''}
end
for i = 2, #ARGV do
  local all = redis.call('HGET', FNS, ARGV[i])
  if all then
    count(ARGV[i], tonumber(all))
  end
end
local counts = #ARGV == 1 and redis.call('HGETALL', FNS) or {}
for i = 1, #counts, 2 do
  count(counts[i], tonumber(counts[i + 1]))
end
return {0, rows}
