// What is done with each kind of message: looked up in the tree, answered, or handed on to the
// worker whose reactor read it.
#pragma once

#include <atomic>
#include <cstdint>

#include "frontends/fuse/tree.h"

struct fuse_lowlevel_ops;

namespace nvmf::fuse {

class TextFiles;

/// What the handlers on all reactors share. The control loop fills it in before the session begins.
struct Served {
  Owner owner;
  TextFiles* texts = nullptr;

  // Learnt from the kernel's first message, before any reactor reads.
  bool greeted = false;
  std::uint32_t open_flags = 0;  // FOPEN_… of a namespace's file
};

/// Their userdata is a Served. Everything but the first message is handled on a worker's reactor,
/// inside Worker::readable().
[[nodiscard]] const fuse_lowlevel_ops& handlers();

}  // namespace nvmf::fuse
