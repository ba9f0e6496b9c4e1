-- What all scripts begin with. KEYS[1] is the prefix of all keys, with the hash tag: "{fn}:".
-- ARGV[1] is the time in unix seconds, or "" for the time of this server.
--
--   version     the version of this layout
--   sequence    how many calls were ever pushed
--   m:ID        hash: call (JSON), payload, fn, pushed, place, attempt, token
--   ready       what may be handed out now; by place, which sorts as text
--   later       ids of what is delayed or leased, by the time when it may be handed out
--   fns         hash: how many messages each function has
--   waiting:FN  ids of the function's messages that nobody holds, by the time of their push
--   bell        channel: something may be handed out, or sooner than was known

local base = KEYS[1]
local READY, LATER, FNS = base .. 'ready', base .. 'later', base .. 'fns'
local AT_ONCE = 500
local INFINITE = math.huge

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Lua writes 14 digits of a number by itself, which is no microseconds.
local function digits(number)
  return string.format('%.6f', number)
end

local function message(id)
  return base .. 'm:' .. id
end

local function waiting(fn)
  return base .. 'waiting:' .. fn
end

local function next_time()
  local first = redis.call('ZRANGE', LATER, 0, 0, 'WITHSCORES')
  return tonumber(first[2]) or INFINITE
end

local known = next_time()

local function ring(freed)
  if freed or next_time() < known then
    redis.call('PUBLISH', base .. 'bell', '')
  end
end

-- The first write of a script decides whether full memory stops it. What frees memory, or is needed
-- to, must go on then: it begins with a write that takes none.
local function even_when_full()
  redis.call('PERSIST', base .. 'version')
end

-- The message may be handed out from *at* on, and nobody holds it.
local function sort_in(id, place, fn, pushed, at)
  if at > now then
    redis.call('ZREM', READY, place)
    redis.call('ZADD', LATER, digits(at), id)
  else
    redis.call('ZREM', LATER, id)
    redis.call('ZADD', READY, 0, place)
  end
  redis.call('ZADD', waiting(fn), pushed, id)
end

-- Makes ready what is due, so many at most; whether something due is left.
local function promote()
  local due = redis.call('ZRANGEBYSCORE', LATER, '-inf', digits(now), 'LIMIT', 0, AT_ONCE)
  for _, id in ipairs(due) do
    local found = redis.call('HMGET', message(id), 'place', 'fn', 'pushed')
    if found[1] then
      sort_in(id, found[1], found[2], found[3], now)
    else
      redis.call('ZREM', LATER, id)
    end
  end
  return #due == AT_ONCE
end
