-- What was spent by many workers, each of which tells all of its own; see spent.py.
--
-- KEYS  a hash: worker → "requests tokens", what it has spent itself.
-- ARGV  worker; its requests and tokens so far; those it wants to spend now; the bounds of all workers together; seconds to keep.
-- Gives {whether it may, requests, tokens}, the latter two of the other workers. What it may is written down with the rest.
--
-- A worker tells its sums and no differences: asked twice, or by one whose answer was lost, the hash says the same, and a Redis
-- that forgot everything learns it anew.

local worker, own, more, bound = ARGV[1], {}, {}, {}
for n = 1, 2 do
  own[n], more[n], bound[n] = tonumber(ARGV[1 + n]), tonumber(ARGV[3 + n]), tonumber(ARGV[5 + n])
end

local others, all = {0, 0}, redis.call('HGETALL', KEYS[1])
for n = 1, #all, 2 do
  local requests, tokens = string.match(all[n + 1], '^(%d+) (%d+)$')
  if not requests then return redis.error_reply('not what a worker spent') end
  if all[n] ~= worker then
    others[1], others[2] = others[1] + tonumber(requests), others[2] + tonumber(tokens)
  end
end

local may = 1
for n = 1, 2 do
  if others[n] + own[n] + more[n] > bound[n] then may = 0 end
end
redis.call('HSET', KEYS[1], worker, string.format('%.0f %.0f', own[1] + may * more[1], own[2] + may * more[2]))
redis.call('EXPIRE', KEYS[1], ARGV[8])
return {may, string.format('%.0f', others[1]), string.format('%.0f', others[2])}
