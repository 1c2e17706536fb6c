#include "host/identity.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>

#include "nvme/address.h"

namespace nvmf::host {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFileBytesMax = 4096;

/// The first line without the blanks around it; nothing if there is no such file.
Result<std::optional<std::string>> read_line(const fs::path& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) {
    if (ec && ec != std::errc::permission_denied) {
      return fail(fmt::format("{} cannot be read: {}", path.string(), ec.message()), ec.value());
    }
    return std::optional<std::string>{};
  }
  std::ifstream file(path);
  std::string line(kFileBytesMax, '\0');
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  if (!file.is_open() || file.bad()) {
    return fail(fmt::format("{} exists but cannot be read", path.string()), EACCES);
  }
  line.resize(static_cast<std::size_t>(file.gcount()));
  line.resize(std::min(line.find('\n'), line.size()));
  const auto first = line.find_first_not_of(" \t\r");
  if (first == std::string::npos) return std::optional<std::string>{};  // empty: as if missing
  return std::optional(line.substr(first, line.find_last_not_of(" \t\r") - first + 1));
}

/// Writes a file of mode 0600 that appears whole or not at all. If another process was faster, its
/// file stays.
Result<void> create_file(const fs::path& path, const std::string& text) {
  std::error_code ec;
  fs::create_directories(path.parent_path(), ec);
  if (ec) {
    return fail(fmt::format("{} cannot be made: {}", path.parent_path().string(), ec.message()),
                ec.value());
  }
  fs::path draft = path;
  draft += "." + nvme::format_uuid(nvme::random_uuid());
  std::ofstream file(draft);
  fs::permissions(draft, fs::perms::owner_read | fs::perms::owner_write, ec);
  file << text << "\n";
  file.close();
  std::error_code link_error;
  if (!file.fail()) fs::create_hard_link(draft, path, link_error);
  std::error_code ignored;
  fs::remove(draft, ignored);
  const bool there = !link_error || link_error == std::errc::file_exists;
  if (file.fail() || !there) {
    return fail(fmt::format("{} cannot be written{}{}", path.string(), link_error ? ": " : "",
                            link_error ? link_error.message() : ""),
                EIO);
  }
  return {};
}

/// Not random and not to be guessed by chance: the same NQN has the same identifier everywhere.
/// Two runs of FNV-1a over the name; marked as a UUID of version 8, "made by other means".
nvme::HostId derived_id(const std::string& hostnqn) {
  nvme::HostId id{};
  std::uint64_t hash = 0xcbf29ce484222325;
  for (std::size_t half = 0; half < 2; ++half) {
    for (const char c : hostnqn) {
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    }
    for (std::size_t i = 0; i < 8; ++i) {
      id[8 * half + i] = static_cast<std::byte>(hash >> (8 * i));
    }
  }
  id[6] = (id[6] & std::byte{0x0f}) | std::byte{0x80};
  id[8] = (id[8] & std::byte{0x3f}) | std::byte{0x80};
  return id;
}

Result<nvme::HostId> parse_id(const std::string& text, const std::string& where) {
  auto uuid = nvme::parse_uuid(text);
  if (!uuid) {
    return fail(fmt::format("{} \"{}\" is no host identifier: a UUID is needed", where, text),
                EINVAL);
  }
  if (*uuid == nvme::Uuid{}) {
    return fail(where + " is all zero, which stands for no host identifier", EINVAL);
  }
  return *uuid;
}

nvme::HostId id_of(const std::string& hostnqn) {
  const auto uuid = nvme::uuid_of_nqn(hostnqn);
  return uuid && *uuid != nvme::Uuid{} ? *uuid : derived_id(hostnqn);
}

Result<Identity> complete(std::string hostnqn, const std::string& where, const std::string& hostid,
                          const fs::path& hostid_file) {
  if (!nvme::usable_nqn(hostnqn)) {
    return fail(fmt::format("{} \"{}\" cannot be a host NQN: it must be 1 to {} bytes of UTF-8 "
                            "without control characters",
                            where, hostnqn, nvme::kMaxNqnBytes),
                EINVAL);
  }
  Identity identity{.hostnqn = std::move(hostnqn)};
  identity.hostid = id_of(identity.hostnqn);
  if (!hostid.empty()) {
    auto id = parse_id(hostid, "the host ID given");
    if (!id) return std::unexpected(id.error());
    identity.hostid = *id;
  } else if (!hostid_file.empty()) {
    auto line = read_line(hostid_file);
    if (!line) return std::unexpected(line.error());
    if (*line) {
      auto id = parse_id(**line, hostid_file.string());
      if (!id) return std::unexpected(id.error());
      identity.hostid = *id;
    }
  }
  return identity;
}

}  // namespace

IdentityPaths IdentityPaths::from_environment() {
  IdentityPaths paths;
  const char* xdg = std::getenv("XDG_CONFIG_HOME");  // NOLINT(concurrency-mt-unsafe)
  const char* home = std::getenv("HOME");            // NOLINT(concurrency-mt-unsafe)
  if (xdg != nullptr && *xdg == '/') {
    paths.user = fs::path(xdg) / "nvmf";
  } else if (home != nullptr && *home != '\0') {
    paths.user = fs::path(home) / ".config" / "nvmf";
  }
  return paths;
}

Result<Identity> host_identity(const std::string& hostnqn, const std::string& hostid,
                               const IdentityPaths& paths) {
  if (!hostnqn.empty()) return complete(hostnqn, "the host NQN given", hostid, {});
  for (const fs::path& folder : {paths.system, paths.user}) {
    if (folder.empty()) continue;
    const fs::path file = folder / "hostnqn";
    auto line = read_line(file);
    if (!line) return std::unexpected(line.error());
    if (*line) return complete(**line, file.string(), hostid, folder / "hostid");
  }
  if (paths.user.empty()) {
    return fail(
        "there is no host NQN: neither /etc/nvme/hostnqn nor a home directory to keep one "
        "in; pass --hostnqn",
        ENOENT);
  }
  const fs::path file = paths.user / "hostnqn";
  if (auto ok = create_file(file, nvme::uuid_nqn(nvme::random_uuid())); !ok) {
    return fail(fmt::format("a host NQN could not be kept: {}; pass --hostnqn", ok.error().message),
                ok.error().code);
  }
  // Read back: another process may have been first.
  auto line = read_line(file);
  if (!line) return std::unexpected(line.error());
  if (!*line) return fail(fmt::format("{} is empty; remove it or pass --hostnqn", file.string()));
  return complete(**line, file.string(), hostid, {});
}

}  // namespace nvmf::host
