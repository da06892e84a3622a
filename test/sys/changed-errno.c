/*
 * Preloaded, makes what V8 does between a call and the reading of errno happen often:
 * - Waits before each FUTEX_WAIT of libc's syscall(), as V8's mutexes make it, so that it fails with EAGAIN.
 * - With ERRNO_PERIOD=N each Nth errno that koffi reads is EAGAIN, whatever the call before it has left.
 * Writes to WAITS_FILE how often it waited.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_int waits;

long syscall(long number, ...) {
  static long (*next)(long, ...);
  if (!next) next = dlsym(RTLD_NEXT, "syscall");
  va_list given;
  va_start(given, number);
  long a = va_arg(given, long), b = va_arg(given, long), c = va_arg(given, long);
  long d = va_arg(given, long), e = va_arg(given, long), f = va_arg(given, long);
  va_end(given);
  int operation = b & FUTEX_CMD_MASK;
  if (number == SYS_futex && (operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET)) {
    atomic_fetch_add(&waits, 1);
    usleep(200);
  }
  return next(number, a, b, c, d, e, f);
}

/* Whether an address is koffi's: a file named so, or in the executable one without a name. */
static int is_koffi(void *address) {
  Dl_info info;
  return dladdr(address, &info) && info.dli_fname &&
         (strstr(info.dli_fname, "koffi") || strstr(info.dli_fname, "/proc/self/fd/"));
}

int *__errno_location(void) {
  static int *(*next)(void);
  static int period = -1;
  static __thread int reads, changed;
  if (!next) next = dlsym(RTLD_NEXT, "__errno_location");
  if (period < 0) period = getenv("ERRNO_PERIOD") ? atoi(getenv("ERRNO_PERIOD")) : 0;
  if (period == 0 || !is_koffi(__builtin_return_address(0)) || ++reads % period != 0) return next();
  changed = EAGAIN;
  return &changed;
}

__attribute__((destructor)) static void tell(void) {
  const char *name = getenv("WAITS_FILE");
  FILE *file = name ? fopen(name, "w") : NULL;
  if (file) fprintf(file, "%d", waits), fclose(file);
}
