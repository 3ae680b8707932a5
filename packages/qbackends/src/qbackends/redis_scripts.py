"""What happens atomically on the Redis server. Key names and states are those of tables W16 and W17."""

from __future__ import annotations

STORE = """
-- KEYS: result keys; ARGV: for each value, seconds to live (0 = for ever), and 1 to keep a stored SUCCESS.
for i, key in ipairs(KEYS) do
    local value, ttl, guarded = ARGV[3 * i - 2], tonumber(ARGV[3 * i - 1]), ARGV[3 * i]
    local final = false
    if guarded == '1' then
        local old = redis.call('GET', key)
        if old then
            local readable, meta = pcall(cjson.decode, old)
            final = readable and type(meta) == 'table' and meta['status'] == 'SUCCESS'
        end
    end
    if not final then
        if ttl > 0 then
            redis.call('SETEX', key, ttl, value)
        else
            redis.call('SET', key, value)
        end
        redis.call('PUBLISH', key, value)
    end
end
"""

CHORD_PART = """
-- KEYS: .j .t .s .d, group, .c
-- ARGV: task id, part, ordered, score, expiry of the books, expiry of the group, expiry of a claim, token, failed
-- Returns {claimed, parts, saved group}; claimed: 0 no, 1 the header is complete, 2 it has failed.
local jkey, tkey, skey, dkey, gkey, ckey = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local owner = redis.call('GET', ckey)
if owner == 'done' then
    return {0}
end
-- A member that runs twice counts once; its position is part of the key as one id may stand at two places.
local member = ARGV[1] .. ':' .. ARGV[4]
if redis.call('SISMEMBER', dkey, member) == 0 then
    if ARGV[3] == '1' then
        redis.call('ZADD', jkey, ARGV[4], ARGV[2])
    else
        redis.call('RPUSH', jkey, ARGV[2])
    end
    redis.call('SADD', dkey, member)
end
if tonumber(ARGV[5]) > 0 then
    for _, key in ipairs({jkey, tkey, skey, dkey}) do
        redis.call('EXPIRE', key, ARGV[5])
    end
    if tonumber(ARGV[6]) > 0 then
        redis.call('EXPIRE', gkey, ARGV[6])
    end
end
local size = redis.call('GET', skey)
if not size then
    return {0}
end
local count = ARGV[3] == '1' and redis.call('ZCARD', jkey) or redis.call('LLEN', jkey)
local complete = count == tonumber(size) + tonumber(redis.call('GET', tkey) or 0)
if not complete and ARGV[9] ~= '1' then
    return {0}
end
-- The same token again: the answer to this very call was lost on its way.
if owner ~= ARGV[8] and not redis.call('SET', ckey, ARGV[8], 'NX', 'EX', ARGV[7]) then
    return {0}
end
if ARGV[9] == '1' then
    return {2}
end
local parts = ARGV[3] == '1' and redis.call('ZRANGE', jkey, 0, -1) or redis.call('LRANGE', jkey, 0, -1)
return {1, parts, redis.call('GET', gkey)}
"""

CHORD_DONE = """
-- KEYS: .c .j .t .s .d; ARGV: token, seconds for which late parts are ignored
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
    redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
    return 1
end
return 0
"""
