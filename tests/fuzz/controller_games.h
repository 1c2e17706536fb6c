// The two ways in which fuzz_controller_qpair plays a hostile host.
#pragma once

#include "fuzz/input.h"

namespace nvmf::fuzz {

/// Against a queue pair with a small controller behind it, driven by hand.
void play_echo(Input input);
/// Against a whole target in virtual time: Connect, properties, admin and I/O commands.
void play_target(Input input);

}  // namespace nvmf::fuzz
