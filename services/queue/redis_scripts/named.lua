-- ARGV: time, seconds of the lease, the most bytes to answer, then id and a token for it in turn.
-- Leases those that are due and that nobody holds. Answers calls as take does.

even_when_full()
local until_then, most = now + tonumber(ARGV[2]), tonumber(ARGV[3])
local taken, bytes = {}, 0
for i = 4, #ARGV, 2 do
  if bytes >= most then
    break
  end
  local id, token = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', message(id), 'place', 'fn', 'attempt', 'pushed', 'call', 'payload')
  if found[1] and tonumber(redis.call('ZSCORE', LATER, id) or now) <= now then
    local attempt = tonumber(found[3]) + 1
    remove_ready(found[1], found[2])
    redis.call('ZREM', waiting(found[2]), id)
    redis.call('ZADD', LATER, digits(until_then), id)
    redis.call('HSET', message(id), 'attempt', attempt, 'token', token)
    bytes = bytes + #found[5] + #found[6]
    taken[#taken + 1] = {id, token, attempt, digits(now - tonumber(found[4])), found[5], found[6]}
  end
end
ring()
return taken
