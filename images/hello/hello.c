#include <stdio.h>

int main(void)
{
	puts("Hello from a microVM");
	return 0;
}
