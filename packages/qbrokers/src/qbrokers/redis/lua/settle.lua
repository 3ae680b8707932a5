-- Take held messages off the books and put each where it belongs, in one step. A tag that is not held any more is
-- skipped, so a settlement may be sent again after a lost reply.
--
-- KEYS  1 unacked  2 unacked_index  3 owners  then the destinations
-- ARGV  1 owner that must be dead, or ""   2 index score (epoch seconds) that a tag must not exceed, or ""
--       then five per message: tag, "L" | "R" | "Z" | "-" (list front of arrival, list front of departure, delayed
--       set, nowhere), number of the destination in KEYS, score for "Z" (ms), envelope
-- Reply number of messages settled, or -1 when the owner turned out to be alive
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '' then
  local lease = redis.call('ZSCORE', KEYS[3], ARGV[1])
  if lease and tonumber(lease) > now_ms then return -1 end
end
-- Before the first write: a destination of a wrong type would swallow its message.
local checked = {}
for i = 3, #ARGV, 5 do
  local key = KEYS[tonumber(ARGV[i + 2])]
  if ARGV[i + 1] ~= '-' and not checked[key] then
    local found, needed = redis.call('TYPE', key).ok, ARGV[i + 1] == 'Z' and 'zset' or 'list'
    if found ~= 'none' and found ~= needed then
      return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found .. ', a ' .. needed .. ' is needed')
    end
    checked[key] = true
  end
end
redis.call('HLEN', KEYS[1])
redis.call('ZCARD', KEYS[2])
local settled = 0
for i = 3, #ARGV, 5 do
  local tag, mode, destination = ARGV[i], ARGV[i + 1], KEYS[tonumber(ARGV[i + 2])]
  local stale = true
  if ARGV[2] ~= '' then
    local score = redis.call('ZSCORE', KEYS[2], tag)
    stale = (not score) or tonumber(score) <= tonumber(ARGV[2])
  end
  if stale then
    redis.call('ZREM', KEYS[2], tag)
    if redis.call('HDEL', KEYS[1], tag) == 1 then
      settled = settled + 1
      if mode == 'L' then redis.call('LPUSH', destination, ARGV[i + 4])
      elseif mode == 'R' then redis.call('RPUSH', destination, ARGV[i + 4])
      elseif mode == 'Z' then redis.call('ZADD', destination, ARGV[i + 3], ARGV[i + 4]) end
    end
  end
end
return settled
