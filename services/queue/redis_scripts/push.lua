-- ARGV: time, id, fn, priority as 8 hex digits (the highest is 0), delay in seconds, call, payload.
-- Answers 1, or 0 when the id is there already.

local id, fn = ARGV[2], ARGV[3]
if redis.call('EXISTS', message(id)) == 1 then
  return 0
end
local place = ARGV[4] .. string.format('%014x', redis.call('INCR', base .. 'sequence')) .. id
local pushed = digits(now)
local at = now + tonumber(ARGV[5])
redis.call('HSET', message(id), 'call', ARGV[6], 'payload', ARGV[7], 'fn', fn, 'pushed', pushed,
  'place', place, 'attempt', 0, 'token', '')
redis.call('HINCRBY', FNS, fn, 1)
-- While something of the function is ready, those who wait for it have been told, and each who takes tells
-- the next.
ring(sort_in(id, place, fn, pushed, at) and fn or nil)
return 1
