// Preloaded into nvme-cli: answers admin commands from the file that NVMF_SHIM_DATA names, so that
// its printing can be seen without a device, or with the status that NVMF_SHIM_STATUS names.
// Everything else is refused.
#include <errno.h>
#include <linux/nvme_ioctl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

int ioctl(int fd, unsigned long request, ...) {
  (void)fd;
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (request != NVME_IOCTL_ADMIN_CMD && request != NVME_IOCTL_ADMIN64_CMD) {
    errno = ENOTTY;
    return -1;
  }
  const char* status = getenv("NVMF_SHIM_STATUS");
  if (status != NULL) return (int)strtoul(status, NULL, 0);
  // Both forms of the command begin alike.
  const struct nvme_admin_cmd* command = argument;
  const char* path = getenv("NVMF_SHIM_DATA");
  FILE* data = path == NULL ? NULL : fopen(path, "rb");
  if (data == NULL) {
    errno = EIO;
    return -1;
  }
  const size_t got = fread((void*)(uintptr_t)command->addr, 1, command->data_len, data);
  fclose(data);
  if (got == command->data_len) return 0;
  errno = EIO;
  return -1;
}
