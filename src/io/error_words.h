// Errors of the system in words: what they mean for connections, and what to try.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nvmf::io {

struct ErrnoWords {
  int code;                  // as errno has it
  std::string_view meaning;  // a sentence without a capital and without a full stop
  std::string_view hint;     // goes on after "try "
};

/// The words for an error that connections meet; null for all others.
const ErrnoWords* errno_words(int code);
/// "; try ..." for the end of a message, or nothing for an error that has no words.
std::string try_words(int code);
/// "ECONNREFUSED", in any case of letters, for every error that the C library names.
std::optional<int> errno_from_name(std::string_view name);

}  // namespace nvmf::io
