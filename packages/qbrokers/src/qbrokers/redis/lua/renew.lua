-- The heartbeat of one process: extend the leases of its owners, and find owners whose lease ended.
--
-- A server that was restarted, or is a replica that took over, or has got the slot, may find leases over that could
-- not be renewed meanwhile. So it notes, with a mark `!<run id>` among the owners, until when it takes nobody for dead.
--
-- KEYS  1 owners  2 unacked_index
-- ARGV  1 lease, ms  2 life of the owners set, ms  3 number of owners, then the owners, then long held tags, whose
--       index score is moved to now so that a stock consumer's visibility timeout never strikes them
-- Reply { server time in ms, ms for which nobody is taken for dead, run id, dead owner, dead owner, ... }
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local info = redis.pcall('INFO', 'server')
local run_id = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
local mark = '!' .. run_id
local spare_until = redis.call('ZSCORE', KEYS[1], mark)
if not spare_until then
  spare_until = now_ms
  for _, owner in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    spare_until = now_ms + tonumber(ARGV[1])
    if string.sub(owner, 1, 1) == '!' then redis.call('ZREM', KEYS[1], owner) end
  end
  redis.call('ZADD', KEYS[1], spare_until, mark)
end
local owners = tonumber(ARGV[3])
for i = 4, 3 + owners do redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[1]), ARGV[i]) end
local score = string.format('%.3f', now_ms / 1000)
for i = 4 + owners, #ARGV do redis.call('ZADD', KEYS[2], 'XX', score, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local reply = { now_ms, math.max(0, tonumber(spare_until) - now_ms), run_id }
if reply[2] > 0 then return reply end
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, 50)) do
  if string.sub(owner, 1, 1) ~= '!' then reply[#reply + 1] = owner end
end
return reply
