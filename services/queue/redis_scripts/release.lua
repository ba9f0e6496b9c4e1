-- ARGV: time, seconds until the calls may be handed out again, 1 when their attempt is not counted (else 0),
-- then id and token in turn. Answers the ids that are not held by their token.

even_when_full()
local at, uncounted = now + tonumber(ARGV[2]), tonumber(ARGV[3])
local lost, freed = {}, nil
for i = 4, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', message(id), 'token', 'place', 'fn', 'pushed', 'attempt')
  if found[1] and token ~= '' and token == found[1] then
    redis.call('HSET', message(id), 'token', '', 'attempt', tonumber(found[5]) - uncounted)
    sort_in(id, found[2], found[3], found[4], at)
    if at <= now then
      freed = one_or_several(freed, found[3])
    end
  else
    lost[#lost + 1] = id
  end
end
ring(freed)
return lost
