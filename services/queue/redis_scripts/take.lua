-- ARGV: time, seconds of the lease, the most bytes to answer, a token for each call that is wanted.
-- Answers [time, when the next may be handed out (or ""), calls]; a call is
-- [id, token, attempt, seconds since its push, call, payload].
-- Takes nothing while something due is not in its place yet: the next look goes on with that.

even_when_full()
local taken, bytes = {}, 0
local unsorted = promote()
local wanted = unsorted and 0 or #ARGV - 3
-- A message can be gone while its place is not, if the server evicts keys: passed over, within a bound.
for _ = 1, wanted > 0 and wanted + AT_ONCE or 0 do
  local first = redis.call('ZRANGE', READY, 0, 0)[1]
  if not first or #taken == wanted or bytes >= tonumber(ARGV[3]) then
    break
  end
  redis.call('ZREM', READY, first)
  local id = string.sub(first, 23)
  local found = redis.call('HMGET', message(id), 'fn', 'pushed', 'call', 'payload')
  if found[1] then
    local token = ARGV[4 + #taken]
    local attempt = redis.call('HINCRBY', message(id), 'attempt', 1)
    redis.call('HSET', message(id), 'token', token)
    redis.call('ZADD', LATER, digits(now + tonumber(ARGV[2])), id)
    redis.call('ZREM', waiting(found[1]), id)
    bytes = bytes + #found[3] + #found[4]
    taken[#taken + 1] = {id, token, attempt, digits(now - tonumber(found[2])), found[3], found[4]}
  end
end
local at = next_time()
if unsorted or redis.call('ZCARD', READY) > 0 then
  at = now
end
ring(false)
return {digits(now), at < INFINITE and digits(at) or '', taken}
