// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The module's own test: runs as root in a virtual machine with the module
 * loaded. Each case is a process of its own and prints "ok NAME" or "FAIL
 * NAME"; the last line is "PASS n/n" or "FAIL m/n".
 */
#include "test.h"

#include "cases.h"

int main(void)
{
	static const struct {
		const char *name;
		void (*body)(void);
	} cases[] = {
#define CASE(name)	{ #name, name },
		CASES
#undef CASE
	};
	size_t count = sizeof(cases) / sizeof(*cases);
	size_t passed = 0;
	size_t i;

	for (i = 0; i < count; i++)
		passed += run(cases[i].name, cases[i].body);
	printf("%s %zu/%zu\n", passed == count ? "PASS" : "FAIL", passed,
	       count);
	return passed != count;
}
