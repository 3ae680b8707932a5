-- Take up to `wanted` messages from the queues of one consumer, and write down whose they are: one atomic step.
--
-- KEYS  1 unacked (hash: tag -> [envelope, exchange, routing key])   2 unacked_index (sorted set: tag -> epoch seconds)
--       3 owners (sorted set: owner -> end of its lease, ms)         4 fence of this owner
--       then one delayed set per queue, then the lists, step by step: all queues of the first step, all of the second ...
-- ARGV  1 owner  2 lease, ms  3 number of the first tag  4 wanted  5 "1": share fairly among the queues of a step
--       6 number of queues  7 number of steps  8 most due messages to move per queue  9 life of the owners set, ms
--       then two per queue: its name as a JSON string, "1" if it is consumed without acknowledgement; then the steps
-- Order: first what our clients sent with a priority (it bears a mark; the lists of the steps above 0), then the plain
--       lists, then the unmarked rest of the other lists, which stock clients sent with a priority below normal.
-- Reply { server time in ms, ms until the next delayed message or -1, queue number, envelope, queue number, envelope, ... }
local owner, first, wanted = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local queues, steps, due_limit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)

-- The process gave this owner up after a lost connection, and has counted what it held: a claim that
-- was still under way must not add to it.
if redis.call('EXISTS', KEYS[4]) == 1 then
  return redis.error_reply('FENCED claim of a connection that was given up')
end

-- A script that fails half way keeps what it has written, so everything that can fail is tried before the first
-- write: keys of a wrong type. (Out of memory is refused by the server before the first write only.)
local failure
local function size(command, key)
  local reply = redis.pcall(command, key)
  if type(reply) == 'table' then
    failure = reply.err .. ' (key ' .. key .. ')'
    return 0
  end
  return reply
end
local function list_of(q, s) return KEYS[4 + queues + s * queues + q] end

local waiting = {}
size('HLEN', KEYS[1])
size('ZCARD', KEYS[2])
size('ZCARD', KEYS[3])
for q = 1, queues do
  size('ZCARD', KEYS[4 + q])
  for s = 0, steps - 1 do waiting[s * queues + q] = size('LLEN', list_of(q, s)) end
end
if failure then return redis.error_reply(failure) end

local step_index = {}
for s = 1, steps do step_index[ARGV[9 + 2 * queues + s]] = s - 1 end

local next_due = -1
for q = 1, queues do
  local delayed = KEYS[4 + q]
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms, 'LIMIT', 0, due_limit)
  if #due > 0 then
    redis.call('ZREM', delayed, unpack(due))
    for _, member in ipairs(due) do
      local colon = string.find(member, ':', 1, true) or 0
      local s = step_index[string.sub(member, 1, colon - 1)] or 0
      redis.call('LPUSH', list_of(q, s), string.sub(member, colon + 1))
      waiting[s * queues + q] = waiting[s * queues + q] + 1
    end
  end
  local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if head[2] then
    local left = math.max(0, tonumber(head[2]) - now_ms)
    if next_due < 0 or left < next_due then next_due = left end
  end
end

local reply, taken = { now_ms, next_due }, 0
local entries, scores = {}, {}
local score = string.format('%.3f', now_ms / 1000)

local function take(q, s, count)
  if waiting[s * queues + q] == 0 then return 0 end
  local popped = redis.call('RPOP', list_of(q, s), count)
  waiting[s * queues + q] = waiting[s * queues + q] - #popped
  for _, raw in ipairs(popped) do
    if ARGV[9 + 2 * q] ~= '1' then
      local tag = owner .. ':' .. (first + taken)
      entries[#entries + 1] = tag
      entries[#entries + 1] = '[' .. raw .. ',"",' .. ARGV[8 + 2 * q] .. ']'
      scores[#scores + 1] = score
      scores[#scores + 1] = tag
    end
    taken = taken + 1
    reply[#reply + 1] = q
    reply[#reply + 1] = raw
  end
  return #popped
end

local function is_marked(q, s)
  if waiting[s * queues + q] == 0 then return false end
  local head = redis.call('LINDEX', list_of(q, s), -1)
  return head and string.find(head, '"x-priority"', 1, true)
end

for s = 1, steps - 1 do
  local found = true
  while found and taken < wanted do
    found = false
    for q = 1, queues do
      while taken < wanted and is_marked(q, s) do
        take(q, s, 1)
        found = true
        if ARGV[5] == '1' then break end
      end
    end
  end
end

for s = 0, steps - 1 do
  if taken >= wanted then break end
  local active = {}
  for q = 1, queues do active[q] = q end
  while #active > 0 and taken < wanted do
    local remaining = {}
    local share = wanted - taken
    if ARGV[5] == '1' then share = math.max(1, math.floor(share / #active)) end
    for _, q in ipairs(active) do
      local count = math.min(share, wanted - taken)
      if count == 0 then break end
      if take(q, s, count) == count then remaining[#remaining + 1] = q end
    end
    active = remaining
  end
end

if #entries > 0 then
  redis.call('HSET', KEYS[1], unpack(entries))
  redis.call('ZADD', KEYS[2], unpack(scores))
end
redis.call('ZADD', KEYS[3], now_ms + tonumber(ARGV[2]), owner)
redis.call('PEXPIRE', KEYS[3], ARGV[9])
return reply
