// Preloaded into nvme-cli: answers commands from files, so that its printing can be seen without a
// device. Everything else is refused. What it looks at in the environment:
//   NVMF_SHIM_DATA       the data of every command that has no file of its own;
//   NVMF_SHIM_DATA_xx    the data of admin opcode xx (two hexadecimal digits). Get Log Page reads at
//                        its offset, all others from the beginning;
//   NVMF_SHIM_RESULT     dword 0 (and 1) of the completion, any base that strtoull takes;
//   NVMF_SHIM_STATUS     the status of every command, which then has neither data nor result;
//   NVMF_SHIM_PROPERTIES a register space: Property Get returns what stands at its offset;
//   NVMF_SHIM_LOG        a file to which a line is added for each command: opcode, NSID, dwords 10 to
//                        15 and the length of the data, hexadecimal.
#include <errno.h>
#include <linux/nvme_ioctl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

enum { GET_LOG_PAGE = 0x02, FABRICS = 0x7f, PROPERTY_GET = 0x04 };

// Reads `size` bytes at `offset` of the file that the variable names.
static int read_file(const char* variable, uint64_t offset, void* out, size_t size) {
  const char* path = getenv(variable);
  FILE* file = path == NULL ? NULL : fopen(path, "rb");
  if (file == NULL) return -1;
  size_t got = 0;
  if (fseek(file, (long)offset, SEEK_SET) == 0) got = fread(out, 1, size, file);
  fclose(file);
  return got == size ? 0 : -1;
}

static int data_of(const struct nvme_admin_cmd* command) {
  if (command->data_len == 0) return 0;
  char own[32];
  snprintf(own, sizeof own, "NVMF_SHIM_DATA_%02x", command->opcode);
  const uint64_t offset =
      command->opcode == GET_LOG_PAGE ? (uint64_t)command->cdw13 << 32 | command->cdw12 : 0;
  return read_file(getenv(own) != NULL ? own : "NVMF_SHIM_DATA", offset,
                   (void*)(uintptr_t)command->addr, command->data_len);
}

static int result_of(const struct nvme_admin_cmd* command, uint64_t* result) {
  if (command->opcode == FABRICS && command->nsid == PROPERTY_GET) {
    return read_file("NVMF_SHIM_PROPERTIES", command->cdw11, result,
                     (command->cdw10 & 7) == 1 ? 8 : 4);
  }
  const char* text = getenv("NVMF_SHIM_RESULT");
  if (text != NULL) *result = strtoull(text, NULL, 0);
  return 0;
}

static void note(const struct nvme_admin_cmd* c) {
  const char* path = getenv("NVMF_SHIM_LOG");
  FILE* file = path == NULL ? NULL : fopen(path, "a");
  if (file == NULL) return;
  fprintf(file, "%x %x %x %x %x %x %x %x %x\n", c->opcode, c->nsid, c->cdw10, c->cdw11, c->cdw12,
          c->cdw13, c->cdw14, c->cdw15, c->data_len);
  fclose(file);
}

int ioctl(int fd, unsigned long request, ...) {
  (void)fd;
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const int wide = request == NVME_IOCTL_ADMIN64_CMD || request == NVME_IOCTL_IO64_CMD;
  if (!wide && request != NVME_IOCTL_ADMIN_CMD && request != NVME_IOCTL_IO_CMD) {
    errno = ENOTTY;
    return -1;
  }
  // Both forms of the command begin alike.
  const struct nvme_admin_cmd* command = argument;
  note(command);
  const char* status = getenv("NVMF_SHIM_STATUS");
  if (status != NULL) return (int)strtoul(status, NULL, 0);
  uint64_t result = 0;
  if (data_of(command) != 0 || result_of(command, &result) != 0) {
    errno = EIO;
    return -1;
  }
  if (wide) {
    ((struct nvme_passthru_cmd64*)argument)->result = result;
  } else {
    ((struct nvme_admin_cmd*)argument)->result = (uint32_t)result;
  }
  return 0;
}
