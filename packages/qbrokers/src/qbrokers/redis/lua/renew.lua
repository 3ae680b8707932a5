-- The heartbeat of one process: extend the leases of its owners, and find owners whose lease ended.
--
-- A server that was restarted, or is a replica that took over, or has got the slot, may find leases over that could
-- not be renewed meanwhile. So it notes, with a mark `!<run id>` among the owners, until when it takes nobody for dead.
--
-- Leases end by the server's clock, which may be set. So the mark `!clock` has the time of the last heartbeat of
-- anybody. When more has passed since than can have passed, the clock was set forward: nobody is taken for dead until
-- every living owner had the time to renew. When the clock was set back, leases are shortened that would last too long.
--
-- KEYS  1 owners  2 unacked_index
-- ARGV  1 lease, ms  2 life of the owners set, ms  3 most that can have passed since the last heartbeat of anybody, ms
--       4 time in which a living owner renews, ms  5 number of owners, then the owners, then long held tags, whose
--       index score is moved to now so that a stock consumer's visibility timeout never strikes them
-- Reply { server time in ms, ms for which nobody is taken for dead, run id, dead owner, dead owner, ... }
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local lease = tonumber(ARGV[1])
local last = tonumber(redis.call('ZSCORE', KEYS[1], '!clock') or now_ms)
if now_ms < last then
  local known = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
  for i = 1, #known, 2 do
    local most = now_ms + math.max(lease, known[i + 1] - last)
    if tonumber(known[i + 1]) > most then redis.call('ZADD', KEYS[1], most, known[i]) end
  end
end

local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local mark = '!' .. run_id
local spare_until = redis.call('ZSCORE', KEYS[1], mark)
if not spare_until then
  spare_until = now_ms
  for _, owner in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    spare_until = now_ms + lease
    if string.sub(owner, 1, 1) == '!' then redis.call('ZREM', KEYS[1], owner) end
  end
  redis.call('ZADD', KEYS[1], spare_until, mark)
end
if now_ms - last > tonumber(ARGV[3]) then
  spare_until = math.max(tonumber(spare_until), now_ms + tonumber(ARGV[4]))
  redis.call('ZADD', KEYS[1], spare_until, mark)
end
redis.call('ZADD', KEYS[1], now_ms, '!clock')

local owners = tonumber(ARGV[5])
for i = 6, 5 + owners do redis.call('ZADD', KEYS[1], now_ms + lease, ARGV[i]) end
local score = string.format('%.3f', now_ms / 1000)
for i = 6 + owners, #ARGV do redis.call('ZADD', KEYS[2], 'XX', score, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local reply = { now_ms, math.max(0, tonumber(spare_until) - now_ms), run_id }
if reply[2] > 0 then return reply end
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, 50)) do
  if string.sub(owner, 1, 1) ~= '!' then reply[#reply + 1] = owner end
end
return reply
