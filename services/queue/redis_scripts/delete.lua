-- ARGV: time, then id and token in turn.

even_when_full()
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', message(id), 'token', 'place', 'fn')
  if found[1] then
    local at = tonumber(redis.call('ZSCORE', LATER, id) or now)
    local ran_out = found[1] ~= '' and at <= now
    if token == '' or token == found[1] or ran_out then
      remove_ready(found[2], found[3])
      redis.call('ZREM', LATER, id)
      redis.call('ZREM', waiting(found[3]), id)
      redis.call('DEL', message(id))
      if redis.call('HINCRBY', FNS, found[3], -1) <= 0 then
        redis.call('HDEL', FNS, found[3])
      end
    end
  end
end
return 0
