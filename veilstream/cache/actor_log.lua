-- A batch of records against the sliding windows of their users and addresses; see actor_log.py.
--
-- KEYS  of actor i, from 1 on: 2i - 1 the ids of its counted records, 2i of its refused ones; both sorted sets.
--       Score of a counted one: its time. Of a refused one: 8 * its time + its refusals in a row.
-- ARGV  JSON: actors = {{limit, burst}, ...}, uses = {{time, id, i, ...}, ...}, and minute, second, keep (ms), in_row, refused.
-- Gives JSON: for each use a list of one number an actor, 0 or its refusals in a row.
--
-- A record that is known gets the answer it got. All else looks at what lies at or before the record's own time, so
-- that a batch done again, or a partition that lies behind, is not refused for what came later.

local asked = cjson.decode(ARGV[1])
local counted, refused, has_refused = {}, {}, {}
for i = 1, #asked.actors do
  counted[i], refused[i] = KEYS[2 * i - 1], KEYS[2 * i]
  has_refused[i] = redis.call('EXISTS', refused[i]) == 1
end

local function text(number) -- tostring() keeps 14 digits
  return string.format('%.0f', number)
end

local function known(use) -- the answer it had, or nil
  local answer, found = {}, false
  for n = 3, #use do
    local i = use[n]
    local score = has_refused[i] and redis.call('ZSCORE', refused[i], use[2])
    answer[#answer + 1] = score and tonumber(score) % 8 or 0
    found = found or score or redis.call('ZSCORE', counted[i], use[2])
  end
  return found and answer or nil
end

local function used_up(i, at)
  local limit, burst = asked.actors[i][1], asked.actors[i][2]
  local in_minute = redis.call('ZCOUNT', counted[i], '(' .. text(at - asked.minute), text(at))
  if in_minute >= limit then return true end
  -- no second holds more than its minute
  return in_minute >= burst and redis.call('ZCOUNT', counted[i], '(' .. text(at - asked.second), text(at)) >= burst
end

local function last(key, score)
  return tonumber(redis.call('ZREVRANGEBYSCORE', key, text(score), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
end

local function in_row(i, at) -- with this refusal
  local before = has_refused[i] and last(refused[i], 8 * at + 7)
  if not before then return 1 end
  local through = last(counted[i], at)
  if through and through > math.floor(before / 8) then return 1 end
  return math.min(before % 8 + 1, asked.in_row)
end

local function decided(use)
  local at, id = use[1], use[2]
  local answer, free = {}, true
  for n = 3, #use do
    local row = used_up(use[n], at) and in_row(use[n], at) or 0
    answer[#answer + 1], free = row, free and row == 0
  end
  for n = 3, #use do
    local i, row = use[n], answer[n - 2]
    if free then
      redis.call('ZADD', counted[i], text(at), id)
    elseif row > 0 then
      redis.call('ZADD', refused[i], text(8 * at + row), id)
      has_refused[i] = true
    end
  end
  return answer
end

local function trimmed(key, before, most) -- most: what one batch done again may ask for is never taken
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(before))
  redis.call('ZREMRANGEBYRANK', key, 0, text(-most - 1))
  redis.call('PEXPIRE', key, text(asked.keep))
end

local answers, oldest = {}, math.huge
for n, use in ipairs(asked.uses) do
  answers[n] = known(use) or decided(use)
  oldest = math.min(oldest, use[1])
end
local before = oldest - asked.keep
for i = 1, #asked.actors do
  trimmed(counted[i], before, 2 * asked.actors[i][1] + #asked.uses)
  if has_refused[i] then trimmed(refused[i], 8 * before + 7, asked.refused + #asked.uses) end
end
return cjson.encode(answers)
