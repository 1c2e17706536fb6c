// Preloaded into nvme-cli together with nvme_cli_shim.c: with NVMF_SHIM_ROOT set, what it looks for
// below /sys it finds below $NVMF_SHIM_ROOT/sys, and its controllers' devices are /dev/null. So its
// verbs that begin by looking around can be seen without a kernel that knows NVMe.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char* moved(const char* path, char out[PATH_MAX]) {
  const char* root = getenv("NVMF_SHIM_ROOT");
  if (root == NULL || path == NULL) return path;
  if (strncmp(path, "/dev/nvme", 9) == 0) return "/dev/null";
  if (strncmp(path, "/sys/", 5) != 0) return path;
  snprintf(out, PATH_MAX, "%s%s", root, path);
  return out;
}

int open64(const char* path, int flags, ...) {
  int mode = 0;
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, int);
    va_end(arguments);
  }
  int (*real)(const char*, int, ...) = dlsym(RTLD_NEXT, "open64");
  char buffer[PATH_MAX];
  return real(moved(path, buffer), flags, mode);
}

int __open64_2(const char* path, int flags) { return open64(path, flags); }

DIR* opendir(const char* path) {
  DIR* (*real)(const char*) = dlsym(RTLD_NEXT, "opendir");
  char buffer[PATH_MAX];
  return real(moved(path, buffer));
}

int scandir64(const char* path, struct dirent64*** list, int (*filter)(const struct dirent64*),
              int (*compare)(const struct dirent64**, const struct dirent64**)) {
  int (*real)(const char*, struct dirent64***, int (*)(const struct dirent64*),
              int (*)(const struct dirent64**, const struct dirent64**)) =
      dlsym(RTLD_NEXT, "scandir64");
  char buffer[PATH_MAX];
  return real(moved(path, buffer), list, filter, compare);
}

int stat64(const char* path, struct stat64* status) {
  int (*real)(const char*, struct stat64*) = dlsym(RTLD_NEXT, "stat64");
  char buffer[PATH_MAX];
  return real(moved(path, buffer), status);
}
