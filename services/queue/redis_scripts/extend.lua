-- ARGV: time, seconds, then id and token in turn. Answers the ids that hold nothing.

even_when_full()
local at = now + tonumber(ARGV[2])
local lost, freed = {}, nil
for i = 3, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', message(id), 'token', 'place', 'fn', 'pushed')
  if not found[1] or found[1] == '' or (token ~= '' and token ~= found[1]) then
    lost[#lost + 1] = id
  elseif at > now then
    remove_ready(found[2], found[3])
    redis.call('ZREM', waiting(found[3]), id)
    redis.call('ZADD', LATER, digits(at), id)
  else
    sort_in(id, found[2], found[3], found[4], now)
    freed = one_or_several(freed, found[3])
  end
end
ring(freed)
return lost
