-- ARGV: time, function, how many, and the place behind which they are: when it was pushed, and its id; or "".
-- Answers [whether something due is not in its place yet, rows] by the time of their push; a row is
-- [place, seconds since its push, attempts, call].

even_when_full()
if promote() then
  return {1, {}}
end
local line, wanted, pushed, last = waiting(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local front = 0
if last ~= '' then
  -- Where it is, or was: somebody may hold it by now.
  local gone = redis.call('ZADD', line, 'NX', pushed, last) == 1
  front = redis.call('ZRANK', line, last)
  if gone then
    redis.call('ZREM', line, last)
  else
    front = front + 1
  end
end
local found = redis.call('ZRANGE', line, front, front + wanted - 1, 'WITHSCORES')
local rows = {}
for i = 1, #found, 2 do
  local of = redis.call('HMGET', message(found[i]), 'attempt', 'call')
  if of[1] then
    rows[#rows + 1] = {found[i + 1] .. ' ' .. found[i], digits(now - tonumber(found[i + 1])), of[1], of[2]}
  end
end
return {0, rows}
