-- What wrk sends: MIX is "read", "page", "write" or "mixed" (95 reads, 5 writes of 100); PRODUCTS is how many there are.
local mix = os.getenv("MIX") or "mixed"
local products = tonumber(os.getenv("PRODUCTS") or "500")
local json = { ["content-type"] = "application/json" }
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init()
  math.randomseed(seed * 7919)
end

local function path()
  return "/api/v1/products/load-" .. math.random(1, products)
end

local function read()
  return wrk.format("GET", path())
end

local function write()
  return wrk.format("PATCH", path(), json, '{"stock":' .. math.random(0, 1000000) .. "}")
end

function request()
  if mix == "read" then return read() end
  if mix == "write" then return write() end
  if mix == "page" then return wrk.format("GET", "/api/v1/products?limit=20&offset=" .. math.random(0, products - 20)) end
  return math.random(1, 100) <= 95 and read() or write()
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout + errors.status
  local function ms(percent) return latency:percentile(percent) / 1000 end
  io.write(string.format("%-8s%12.0f%10.2f%10.2f%10.2f%10.2f%10.2f%12d%9d\n", mix, summary.requests / (summary.duration / 1e6),
    ms(50), ms(90), ms(99), ms(99.9), latency.max / 1000, summary.requests, failed))
  if failed > 0 then
    io.write(string.format("%-8s  failed: %d answered with 4xx or 5xx, %d not in time, %d not connected, %d broken off\n", mix,
      errors.status, errors.timeout, errors.connect, errors.read + errors.write))
  end
end
