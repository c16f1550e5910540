/* When a health check runs, and what its results mean. Pure. */
#include "health.h"

#define NS_PER_MS 1000000u

static uint64_t after(uint64_t now, uint32_t ms)
{
	return now + (uint64_t)ms * NS_PER_MS;
}

/* The engine checks often in the start period, but only until the first success. */
static void schedule(struct health *health, uint64_t now)
{
	bool often = health->status == HEALTH_STARTING && now < health->start_period_end;
	health->due = after(now, often ? health->times.start_interval_ms : health->times.interval_ms);
}

static void count(struct health *health, int code)
{
	if (code == 0) {
		health->failing = 0;
		health->status = HEALTH_HEALTHY;
		return;
	}
	if (health->status == HEALTH_STARTING && health->forgiven)
		return;
	health->failing++;
	if (health->failing >= health->times.retries)
		health->status = HEALTH_UNHEALTHY;
}

void health_begin(struct health *health, const struct health_times *times, uint64_t now)
{
	*health = (struct health){.times = *times, .start_period_end = after(now, times->start_period_ms)};
	schedule(health, now);
}

enum health_step health_step(struct health *health, uint64_t now)
{
	if (now < health->due)
		return HEALTH_WAIT;
	if (health->running) {
		health->running = false;
		health->due = UINT64_MAX; /* until health_ended */
		count(health, HEALTH_TIMED_OUT);
		return HEALTH_KILL;
	}
	health->running = true;
	health->forgiven = now < health->start_period_end;
	health->due = after(now, health->times.timeout_ms);
	return HEALTH_START;
}

void health_ended(struct health *health, int code, uint64_t now)
{
	if (health->stopped)
		return;
	if (health->running)
		count(health, code);
	health->running = false;
	schedule(health, now);
}

void health_stop(struct health *health)
{
	health->stopped = true;
	health->due = UINT64_MAX;
}

const char *health_word(enum health_status status)
{
	static const char *const words[] = {"starting", "healthy", "unhealthy"};
	return words[status];
}
