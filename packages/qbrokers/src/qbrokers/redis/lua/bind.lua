-- Write one binding, or refresh it. A table that holds only bindings of expiring queues gets a deadline: in the
-- sorted set that stock kombu sweeps, and as the key's own life.
--
-- KEYS  1 binding table  2 permanent bindings of the exchange  3 binding deadlines
-- ARGV  1 member  2 exchange  3 life in ms, "" for a queue that does not expire
redis.call('SADD', KEYS[1], ARGV[1])
if ARGV[3] == '' then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('PERSIST', KEYS[1])
  return 1
end
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[3], 'GT', now_ms + tonumber(ARGV[3]), ARGV[2])
if redis.call('PTTL', KEYS[3]) < 2 * tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[3], 2 * tonumber(ARGV[3])) end
if redis.call('EXISTS', KEYS[2]) == 0 and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
