-- ARGV: time, seconds of the lease, the most bytes to answer, how many functions are passed over, these,
-- then a token for each call that is wanted.
-- Answers [time, when the next may be handed out (or ""), calls]; a call is
-- [id, token, attempt, seconds since its push, call, payload].
-- Takes nothing while something due is not in its place yet: the next look goes on with that.

even_when_full()
local until_then, most = digits(now + tonumber(ARGV[2])), tonumber(ARGV[3])
local tokens = 4 + tonumber(ARGV[4])
local passed_over = {}
for i = 5, tokens do
  passed_over[ARGV[i]] = true
end
local taken, bytes = {}, 0
local unsorted = promote()
local wanted = unsorted and 0 or #ARGV - tokens
-- A message can be gone while its place is not, if the server evicts keys: passed over, within a bound.
local looks = wanted > 0 and wanted + AT_ONCE or 0
local front = 0

-- The first head that is not passed over, its function, and the head after it. What is passed over stays
-- in front of all that changes behind it.
local function next_head()
  while true do
    local heads = redis.call('ZRANGE', HEADS, front, front + 1)
    local fn = heads[1] and string.match(heads[1], '^%S+ (.*)$')
    if not fn or not passed_over[fn] then
      return heads[1], fn, heads[2]
    end
    front = front + 1
  end
end

-- Whether the place *a* comes before *b*; their text is not compared, whose order is that of a locale.
local function before(a, b)
  local rank, other = tonumber(string.sub(a, 1, 8), 16), tonumber(string.sub(b, 1, 8), 16)
  if rank ~= other then
    return rank < other
  end
  return tonumber(string.sub(a, 9, 22), 16) < tonumber(string.sub(b, 9, 22), 16)
end

local leased, of = {}, {}

local function lease(id, fn)
  local found = redis.call('HMGET', message(id), 'attempt', 'pushed', 'call', 'payload')
  if not found[1] then
    return
  end
  local token, attempt = ARGV[tokens + #taken + 1], tonumber(found[1]) + 1
  redis.call('HSET', message(id), 'attempt', attempt, 'token', token)
  bytes = bytes + #found[3] + #found[4]
  taken[#taken + 1] = {id, token, attempt, digits(now - tonumber(found[2])), found[3], found[4]}
  leased[#leased + 1] = until_then
  leased[#leased + 1] = id
  of[fn] = of[fn] or {}
  table.insert(of[fn], id)
end

local window = 1
while #taken < wanted and bytes < most and looks > 0 do
  local first, fn, following = next_head()
  if not first then
    break
  end
  -- What the function has before the others' first, as much as it had the last time.
  local places, gone = redis.call('ZRANGE', ready(fn), 0, window), {}
  for i = 1, math.min(#places, window) do
    if #taken == wanted or bytes >= most or (i > 1 and following and not before(places[i], following)) then
      break
    end
    gone[i] = places[i]
    lease(string.sub(places[i], 23), fn)
  end
  redis.call('ZREM', HEADS, first)
  if #gone > 0 then
    redis.call('ZREM', ready(fn), unpack(gone))
  end
  local left = places[#gone + 1]
  if left then
    redis.call('ZADD', HEADS, 0, head(left, fn))
  end
  looks = looks - math.max(1, #gone)
  window = #gone == window and math.min(2 * window, 100) or math.max(1, #gone)
end
if #leased > 0 then
  redis.call('ZADD', LATER, unpack(leased))
end
for fn, ids in pairs(of) do
  redis.call('ZREM', waiting(fn), unpack(ids))
end
local at = next_time()
if unsorted or next_head() then
  at = now
end
ring()
return {digits(now), at < INFINITE and digits(at) or '', taken}
