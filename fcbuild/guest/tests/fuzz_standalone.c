/*
 * A main() for a fuzz target where the compiler has no libFuzzer, with the options of libFuzzer that
 * the Makefile uses: -runs=N -seed=N -max_len=N, then directories of seeds. It changes the seeds at
 * random, with no eye on coverage; the same seed makes the same inputs.
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SEEDS_MAX = 1024, CHANGES_MAX = 4, RUN_SECONDS = 10 };

struct input {
	uint8_t *bytes;
	size_t size;
};

static struct input seeds[SEEDS_MAX];
static size_t seedc, length_max = 4096;
static uint64_t state = 1;

/* Marsaglia's xorshift64. */
static size_t random_below(size_t limit)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return limit > 0 ? (size_t)(state % limit) : 0;
}

static void read_seed(const char *directory, const char *name)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "rb");
	if (file == NULL || seedc == SEEDS_MAX) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(1);
	}
	uint8_t *bytes = malloc(length_max);
	check(bytes != NULL);
	seeds[seedc++] = (struct input){bytes, fread(bytes, 1, length_max, file)};
	fclose(file);
}

static void read_seeds(const char *directory)
{
	DIR *open = opendir(directory);
	if (open == NULL) {
		fprintf(stderr, "%s: cannot be read\n", directory);
		exit(1);
	}
	for (struct dirent *entry; (entry = readdir(open)) != NULL;)
		if (entry->d_name[0] != '.')
			read_seed(directory, entry->d_name);
	closedir(open);
}

/* Change one place: another byte, a flipped bit, a piece that goes, a piece that comes from elsewhere. */
static void change(struct input *input)
{
	static const char marks[] = "\0\n =:/\"\\.-09az\x7f\x80\xff";
	size_t at = random_below(input->size + 1), left = input->size - at;
	size_t length = 1 + random_below(random_below(4) > 0 ? 8 : 256);
	const struct input *other = &seeds[random_below(seedc)];
	size_t from = random_below(other->size + 1);
	switch (random_below(5)) {
	case 0:
		if (left > 0)
			input->bytes[at] = (uint8_t)marks[random_below(sizeof marks - 1)];
		break;
	case 1:
		if (left > 0)
			input->bytes[at] ^= (uint8_t)(1 << random_below(8));
		break;
	case 2:
		length = length < left ? length : left;
		memmove(input->bytes + at, input->bytes + at + length, left - length);
		input->size -= length;
		break;
	case 3:
		length = length < other->size - from ? length : other->size - from;
		length = length < length_max - input->size ? length : length_max - input->size;
		memmove(input->bytes + at + length, input->bytes + at, left);
		memcpy(input->bytes + at, other->bytes + from, length);
		input->size += length;
		break;
	default:
		input->size = at;
	}
}

/* SIGALRM ends a run that does not end. */
static void run_one(const struct input *input)
{
	alarm(RUN_SECONDS);
	LLVMFuzzerTestOneInput(input->bytes, input->size);
}

int main(int argc, char **argv)
{
	unsigned long runs = 0;
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "-runs=", 6) == 0)
			runs = strtoul(argv[i] + 6, NULL, 10);
		else if (strncmp(argv[i], "-seed=", 6) == 0)
			state = 1 + strtoul(argv[i] + 6, NULL, 10);
		else if (strncmp(argv[i], "-max_len=", 9) == 0)
			length_max = strtoul(argv[i] + 9, NULL, 10);
		else
			read_seeds(argv[i]);
	}
	if (seedc == 0)
		seeds[seedc++] = (struct input){(uint8_t *)copy_of("", 0, 1), 0};
	struct input input = {malloc(length_max), 0};
	check(input.bytes != NULL);
	for (size_t i = 0; i < seedc; i++)
		run_one(&seeds[i]);
	for (unsigned long run = seedc; run < runs; run++) {
		const struct input *seed = &seeds[random_below(seedc)];
		memcpy(input.bytes, seed->bytes, seed->size);
		input.size = seed->size;
		for (size_t i = 1 + random_below(CHANGES_MAX); i > 0; i--)
			change(&input);
		run_one(&input);
	}
	printf("Done %lu runs from %zu seeds\n", runs, seedc);
	return 0;
}
