// libfuse's low-level interface, as this room uses it. For .cpp files only.
#pragma once

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 14)
#include <fuse_lowlevel.h>
