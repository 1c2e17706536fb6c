// A hostile host's bytes for the controller's end. The first byte chooses what stands behind it.
#include "fuzz/controller_games.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nvmf::fuzz::Input input(data, size);
  if ((input.u8() & 1) != 0) {
    nvmf::fuzz::play_target(input);
  } else {
    nvmf::fuzz::play_echo(input);
  }
  return 0;
}

// A target's 64 MiB of buffers come and go with every input: kept in quarantine for long, they cost
// more than all the rest.
extern "C" const char* __asan_default_options() {  // NOLINT(bugprone-reserved-identifier)
  return "quarantine_size_mb=16";
}
