/* What a program under callgrind tells it: count from now on, forget what was counted, write it down under a name. */
#include <valgrind/callgrind.h>

void begin(void) { CALLGRIND_START_INSTRUMENTATION; }
void forget(void) { CALLGRIND_ZERO_STATS; }
void write_down(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
