-- ARGV: time, seconds until the calls may be handed out again, then id and token in turn.

even_when_full()
local at = now + tonumber(ARGV[2])
local freed = false
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', message(id), 'token', 'place', 'fn', 'pushed')
  if found[1] and token ~= '' and token == found[1] then
    redis.call('HSET', message(id), 'token', '')
    redis.call('HINCRBY', message(id), 'attempt', -1)
    sort_in(id, found[2], found[3], found[4], at)
    freed = freed or at <= now
  end
end
ring(freed)
return 0
