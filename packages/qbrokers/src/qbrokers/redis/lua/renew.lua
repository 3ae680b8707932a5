-- Heartbeat of one process: extend the leases of its owners, and find owners whose lease ended.
--
-- KEYS  1 owners  2 unacked_index
-- ARGV  1 lease, ms  2 life of the owners set, ms  3 number of owners, then the owners, then long held tags, whose
--       index score is moved to now so that a stock consumer's visibility timeout never strikes them
-- Reply { server time in ms, dead owner, dead owner, ... }
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local owners = tonumber(ARGV[3])
for i = 4, 3 + owners do redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[1]), ARGV[i]) end
local score = string.format('%.3f', now_ms / 1000)
for i = 4 + owners, #ARGV do redis.call('ZADD', KEYS[2], 'XX', score, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local reply = { now_ms }
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, 50)) do
  reply[#reply + 1] = owner
end
return reply
