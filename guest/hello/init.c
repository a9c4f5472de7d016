/* What a bare kernel's boot is measured with: prints one line on the console and powers the machine off. No libc: nothing runs but this. */
#include <linux/reboot.h>
#include <sys/syscall.h>

static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

void _start(void) {
  static const char line[] = "hello from pid 1\n";
  call(SYS_write, 1, (long)line, sizeof line - 1);
  call(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF);
  /* pid 1 must not end. */
  for (;;) call(SYS_pause, 0, 0, 0);
}
