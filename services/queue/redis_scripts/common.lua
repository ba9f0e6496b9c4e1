-- What all scripts begin with. KEYS[1] is the prefix of all keys, with the hash tag: "{fn}:".
-- ARGV[1] is the time in unix seconds, or "" for the time of this server.
--
--   version     the version of this layout
--   sequence    how many calls were ever pushed
--   m:ID        hash: call (JSON), payload, fn, pushed, place, attempt, token
--   ready:FN    what of the function may be handed out now; by place, which sorts as text
--   heads       the first place of each function that has any there, with the function's id behind it
--   later       ids of what is delayed or leased, by the time when it may be handed out
--   fns         hash: how many messages each function has
--   waiting:FN  ids of the function's messages that nobody holds, by the time of their push
--   bell        channel: something of the function that is named, or of any, may be handed out, or sooner
--               than was known
--   ready       what layout 1 had for all functions; what is found there moves on

local base = KEYS[1]
local HEADS, LATER, FNS, OLD = base .. 'heads', base .. 'later', base .. 'fns', base .. 'ready'
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

local function ready(fn)
  return base .. 'ready:' .. fn
end

local function head(place, fn)
  return place .. ' ' .. fn
end

local function next_time()
  local first = redis.call('ZRANGE', LATER, 0, 0, 'WITHSCORES')
  return tonumber(first[2]) or INFINITE
end

local known = next_time()

-- *freed*: the function that something may be handed out of, '' for several, nil for none.
local function ring(freed)
  if next_time() < known then
    freed = ''
  end
  if freed then
    redis.call('PUBLISH', base .. 'bell', freed)
  end
end

local function one_or_several(freed, fn)
  return (freed == nil or freed == fn) and fn or ''
end

-- The first write of a script decides whether full memory stops it. What frees memory, or is needed
-- to, must go on then: it begins with a write that takes none.
local function even_when_full()
  redis.call('PERSIST', base .. 'version')
end

-- The place may be handed out; whether it is the only one of its function.
local function add_ready(place, fn)
  redis.call('ZADD', ready(fn), 0, place)
  local first = redis.call('ZRANGE', ready(fn), 0, 1)
  if first[1] == place then
    if first[2] then
      redis.call('ZREM', HEADS, head(first[2], fn))
    end
    redis.call('ZADD', HEADS, 0, head(place, fn))
  end
  return not first[2]
end

local function remove_ready(place, fn)
  if redis.call('ZREM', ready(fn), place) == 1 and redis.call('ZREM', HEADS, head(place, fn)) == 1 then
    local first = redis.call('ZRANGE', ready(fn), 0, 0)[1]
    if first then
      redis.call('ZADD', HEADS, 0, head(first, fn))
    end
  end
end

-- The message may be handed out from *at* on, and nobody holds it; whether it is the only one of its
-- function that may be handed out.
local function sort_in(id, place, fn, pushed, at)
  local only = false
  if at > now then
    remove_ready(place, fn)
    redis.call('ZADD', LATER, digits(at), id)
  else
    redis.call('ZREM', LATER, id)
    only = add_ready(place, fn)
  end
  redis.call('ZADD', waiting(fn), pushed, id)
  return only
end

-- Moves what layout 1 had ready, so much at most; whether some is left.
local function adopt()
  local places = redis.call('ZRANGE', OLD, 0, AT_ONCE - 1)
  for _, place in ipairs(places) do
    local id = string.sub(place, 23)
    local fn = redis.call('HGET', message(id), 'fn')
    redis.call('ZREM', OLD, place)
    if fn and not redis.call('ZSCORE', LATER, id) then
      add_ready(place, fn)
    end
  end
  return #places == AT_ONCE
end

-- Makes ready what is due, so much at most; whether something due is left.
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
  return adopt() or #due == AT_ONCE
end
