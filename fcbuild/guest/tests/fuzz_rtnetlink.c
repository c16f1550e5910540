/* What the kernel answers over netlink. */
#include "fuzz.h"
#include "rtnetlink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *bytes = copy_of(data, size, 0);
	struct rtnetlink_answer answer = rtnetlink_answer(bytes, size, 1);
	check(answer.error >= 0);
	free(bytes);
	return 0;
}
