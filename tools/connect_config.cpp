#include "connect_config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sstream>

#include "control/runtime_dir.h"
#include "io/unique_fd.h"
#include "nvme/text.h"

namespace nvmf::tools {

namespace {

/// A few dozen options; whatever is larger is another file.
constexpr std::size_t kConfigBytesMax = 64 * 1024;
constexpr std::string_view kAddress = "address";
/// What says the same as an address.
constexpr std::initializer_list<const char*> kSpelled = {"--transport", "--traddr", "--trsvcid",
                                                         "--nqn"};
/// About the command line itself.
constexpr std::initializer_list<std::string_view> kNotInFiles = {"config", "help", "version"};

std::vector<std::string> folders() {
  if (const char* only = std::getenv("NVMF_CONFIG_DIR"); only != nullptr && *only != '\0') {
    return {only};
  }
  std::vector<std::string> found{"/etc/nvmf"};
  const char* const config = std::getenv("XDG_CONFIG_HOME");
  const char* const home = std::getenv("HOME");
  if (config != nullptr && *config == '/') {
    found.push_back(std::string(config) + "/nvmf");
  } else if (home != nullptr && *home == '/') {
    found.push_back(std::string(home) + "/.config/nvmf");
  }
  if (::geteuid() != 0) std::ranges::reverse(found);
  return found;
}

Result<std::string> find_config(std::string_view file_or_name) {
  if (file_or_name.find('/') != std::string_view::npos) return std::string(file_or_name);
  if (auto good = control::check_name(file_or_name); !good) {
    return std::unexpected(std::move(good.error()));
  }
  std::string looked;
  for (const std::string& folder : folders()) {
    std::string path = fmt::format("{}/{}.conf", folder, file_or_name);
    if (::access(path.c_str(), F_OK) == 0) return path;
    looked += (looked.empty() ? "" : " nor ") + path;
  }
  return fail(fmt::format("There is no configuration file {}: make it, or give --config a path "
                          "with a slash in it; man nvmf.conf says what is in one",
                          looked),
              ENOENT);
}

Result<std::string> read_text(const std::string& path) {
  const auto unreadable = [&path](std::string_view why, int code) {
    return fail(fmt::format("The configuration file {} cannot be read: {}", path, why), code);
  };
  // What is looked at is what is read, whatever happens to its name; a FIFO keeps nobody waiting.
  const io::UniqueFd file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat st{};
  if (!file.valid() || ::fstat(file.get(), &st) != 0)
    return unreadable(std::strerror(errno), errno);
  if (!S_ISREG(st.st_mode)) {
    return unreadable(S_ISDIR(st.st_mode) ? "it is a folder" : "it is no regular file", EINVAL);
  }
  // It can name a command to run.
  if (::geteuid() == 0 && (st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
    return fail(fmt::format("The configuration file {} can be written to by others than root, whom "
                            "it commands: chown root and chmod go-w it",
                            path),
                EPERM);
  }
  std::string text(kConfigBytesMax + 1, '\0');
  std::size_t bytes = 0;
  while (bytes < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + bytes, text.size() - bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return unreadable(std::strerror(errno), errno);
    if (n == 0) break;
    bytes += static_cast<std::size_t>(n);
  }
  text.resize(bytes);
  if (text.size() > kConfigBytesMax) {
    return fail(fmt::format("The configuration file {} is longer than {} KiB: it is another file",
                            path, kConfigBytesMax / 1024),
                EFBIG);
  }
  return text;
}

std::unexpected<Error> wrong_line(const ConnectConfig& config, int line, std::string_view why) {
  return fail(fmt::format("{} line {}: {}", config.path, line, why), EINVAL);
}

/// A line is one value: neither commas nor spaces nor comments are looked for in it.
CLI::ConfigBase whole_lines() {
  CLI::ConfigBase parser;
  parser.arrayBounds('[', ']')->arrayDelimiter(' ')->comment('\0');
  return parser;
}

Result<void> read_line(const CLI::ConfigBase& parser, const std::string& text, int line,
                       ConnectConfig& config) {
  const std::string trimmed = CLI::detail::trim_copy(text);
  if (trimmed.empty() || trimmed.starts_with('#') || trimmed.starts_with(';')) return {};
  if (trimmed.starts_with('[')) {
    return wrong_line(config, line, "sections have no meaning here: leave it out");
  }
  if (trimmed.find('\0') != std::string::npos || !nvme::valid_utf8(trimmed)) {
    return wrong_line(config, line, "this is no text");
  }
  std::istringstream in(trimmed);
  const auto items = parser.from_config(in);
  if (items.size() != 1 || !items.front().parents.empty() || items.front().inputs.size() > 1) {
    return wrong_line(config, line,
                      fmt::format("\"{}\" is no KEY = VALUE", nvme::printable(trimmed)));
  }
  const CLI::ConfigItem& item = items.front();
  config.entries.push_back(
      {item.name, item.inputs.empty() ? std::string() : item.inputs.front(), line});
  return {};
}

const CLI::Option* option_of(const CLI::App& app, const std::string& key) {
  if (std::ranges::find(kNotInFiles, key) != kNotInFiles.end()) return nullptr;
  if (key == kAddress) return app.get_option_no_throw(key);
  // By their long names only: "i" or "-i" is nothing that one reads a year later.
  return key.size() < 2 || key.starts_with('-') ? nullptr : app.get_option_no_throw("--" + key);
}

bool given(const CLI::App& app, const std::string& name) {
  const CLI::Option* const option = app.get_option_no_throw(name);
  return option != nullptr && option->count() != 0;
}

/// On the command line, an address in either spelling stands for the whole address of the file.
bool overridden(const CLI::App& app, const std::string& key, const CLI::Option& option) {
  if (option.count() != 0) return true;
  const bool spelled = std::ranges::find(kSpelled, "--" + key) != kSpelled.end();
  if (spelled) return given(app, std::string(kAddress));
  return key == kAddress &&
         std::ranges::any_of(kSpelled, [&app](const char* name) { return given(app, name); });
}

}  // namespace

Result<ConnectConfig> read_connect_config(std::string_view file_or_name) {
  auto path = find_config(file_or_name);
  if (!path) return std::unexpected(std::move(path.error()));
  ConnectConfig config;
  config.path = std::move(*path);
  if (file_or_name.find('/') == std::string_view::npos) config.name = file_or_name;
  auto text = read_text(config.path);
  if (!text) return std::unexpected(std::move(text.error()));
  const CLI::ConfigBase parser = whole_lines();
  std::istringstream lines(*text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    if (auto read = read_line(parser, line, ++number, config); !read) {
      return std::unexpected(std::move(read.error()));
    }
  }
  return config;
}

Result<std::vector<std::string>> words_of(const ConnectConfig& config, const CLI::App& app) {
  std::vector<std::string> words;
  for (const ConnectConfig::Entry& entry : config.entries) {
    const CLI::Option* const option = option_of(app, entry.key);
    if (option == nullptr) {
      return wrong_line(config, entry.line,
                        fmt::format("there is no option \"{}\": keys are the long names of the "
                                    "options, without dashes",
                                    nvme::printable(entry.key)));
    }
    const bool flag = option->get_items_expected_max() == 0;
    if (flag && entry.value != "true" && entry.value != "false") {
      return wrong_line(
          config, entry.line,
          fmt::format("{} is true or false, not \"{}\"", entry.key, nvme::printable(entry.value)));
    }
    if (!flag && entry.value.empty()) {
      return wrong_line(config, entry.line, fmt::format("{} has no value", entry.key));
    }
    if (overridden(app, entry.key, *option) || (flag && entry.value == "false")) continue;
    if (entry.key == kAddress) {
      words.push_back(entry.value);
    } else {
      words.push_back(flag ? "--" + entry.key : fmt::format("--{}={}", entry.key, entry.value));
    }
  }
  return words;
}

std::string place_of(const ConnectConfig& config, std::string_view sentence) {
  for (const ConnectConfig::Entry& entry : config.entries) {
    if (sentence.find("--" + entry.key) == std::string_view::npos) continue;
    return fmt::format(" ({} line {})", config.path, entry.line);
  }
  return fmt::format(" ({})", config.path);
}

}  // namespace nvmf::tools
