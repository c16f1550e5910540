/* The config drive's document. */
#include "fuzz_instance.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct instance instance;
	char error[64] = "";
	char *text = copy_of(data, size, 0);
	memset(&instance, 0, sizeof instance);
	if (instance_parse(text, size, &instance, error, sizeof error) == 0) {
		check_instance(&instance, size);
		check_merge(&instance);
	} else {
		check(strlen(error) > 0);
	}
	free(text);
	return 0;
}
