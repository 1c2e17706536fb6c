#include "controller/subsystem.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "controller/controller.h"
#include "controller/file_disk.h"
#include "controller/memory_disk.h"
#include "controller/system.h"
#include "nvme/endian.h"

namespace nvmf::controller {

namespace {

constexpr std::uint64_t kUuidSalt = 1;
constexpr std::uint64_t kNguidSalt = 2;
constexpr std::uint64_t kSerialSalt = 3;

std::uint64_t mix(std::uint64_t x) {
  // The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/// Makes random or hashed bytes a UUID of `version` in the variant of RFC 9562.
nvme::Uuid as_uuid(nvme::Uuid bytes, unsigned version) {
  bytes[6] = (bytes[6] & std::byte{0x0f}) | static_cast<std::byte>(version << 4);
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  return bytes;
}

Result<std::unique_ptr<Namespace>> make_namespace(transport::Loop& loop,
                                                  const NamespaceConfig& config,
                                                  std::uint32_t nsid) {
  auto made = std::make_unique<Namespace>();
  made->nsid = nsid;
  made->block_bytes = config.block_bytes;
  if (config.kind == NamespaceConfig::Kind::memory) {
    if (config.size_bytes == 0 || config.size_bytes % config.block_bytes != 0) {
      return fail(fmt::format("A memory namespace of {} bytes is not possible: give a multiple of "
                              "the block size of {} bytes",
                              config.size_bytes, config.block_bytes),
                  EINVAL);
    }
    auto disk = MemoryDisk::create(config.size_bytes);
    if (!disk) return std::unexpected(std::move(disk.error()));
    made->disk = std::move(*disk);
    // Its content is new with every start, so it is another disk: hosts must be able to tell.
    made->uuid = nvme::random_uuid();
    made->nguid = nvme::random_uuid();
    return made;
  }
  auto disk = FileDisk::open(loop, config.path, config.block_bytes, /*read_only=*/false);
  if (!disk) return std::unexpected(std::move(disk.error()));
  made->disk = std::move(*disk);
  const std::string identity = file_identity(config.path);
  made->uuid = as_uuid(stable_bytes(identity, kUuidSalt), 8);
  made->nguid = stable_bytes(identity, kNguidSalt);
  return made;
}

}  // namespace

std::array<std::byte, 16> stable_bytes(std::string_view text, std::uint64_t salt) {
  // FNV-1a twice with different beginnings. It names files apart; it keeps no secret.
  std::uint64_t low = 0xcbf29ce484222325u ^ mix(salt);
  std::uint64_t high = 0x84222325cbf29ce4u ^ mix(~salt);
  for (const char c : text) {
    low = (low ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    high = (high ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    high = high << 7 | high >> 57;
  }
  std::array<std::byte, 16> bytes;
  store_be64(bytes.data(), mix(low));
  store_be64(bytes.data() + 8, mix(high));
  return bytes;
}

Result<std::unique_ptr<Subsystem>> Subsystem::create(transport::Loop& loop,
                                                     const SubsystemConfig& config) {
  std::unique_ptr<Subsystem> made(new Subsystem(config.nqn, loop.now()));
  // The same on every target that serves this NQN: paths of one subsystem must agree on it.
  made->serial_ = config.serial.empty()
                      ? nvme::format_hex(stable_bytes(config.nqn, kSerialSalt)).substr(0, 20)
                      : config.serial;
  made->hosts_ = config.hosts;
  for (const NamespaceConfig& ns : config.namespaces) {
    auto added = made->add_namespace(loop, ns);
    if (!added) return std::unexpected(std::move(added.error()));
  }
  return made;
}

std::unique_ptr<Subsystem> Subsystem::create_discovery(Instant now) {
  std::unique_ptr<Subsystem> made(new Subsystem(std::string(nvme::kDiscoveryNqn), now));
  made->discovery_ = true;
  made->serial_ = nvme::format_hex(stable_bytes(made->nqn_, kSerialSalt)).substr(0, 20);
  return made;
}

bool Subsystem::allows(std::string_view hostnqn) const {
  return hosts_.empty() || std::ranges::find(hosts_, hostnqn) != hosts_.end();
}

Namespace* Subsystem::find(std::uint32_t nsid) const {
  return nsid >= 1 && nsid <= namespaces_.size() ? namespaces_[nsid - 1].get() : nullptr;
}

Result<std::uint32_t> Subsystem::add_namespace(transport::Loop& loop,
                                               const NamespaceConfig& config) {
  if (namespaces_.size() >= kNamespacesMax) {
    return fail(fmt::format("The subsystem {} has {} namespaces already; no more are possible",
                            nqn_, namespaces_.size()),
                ENOSPC);
  }
  const auto nsid = static_cast<std::uint32_t>(namespaces_.size() + 1);
  auto made = make_namespace(loop, config, nsid);
  if (!made) return std::unexpected(std::move(made.error()));
  namespaces_.push_back(std::move(*made));
  for (Controller* controller : controllers_) controller->namespace_changed(nsid);
  return nsid;
}

bool Subsystem::volatile_cache() const {
  return std::ranges::any_of(namespaces_,
                             [](const auto& ns) { return ns->disk->volatile_cache(); });
}

std::uint16_t Subsystem::take_cntlid() {
  // Not the lowest free one: a host that is late must not meet a stranger under an old number.
  for (std::uint32_t tried = 0; tried < kCntlidMax; ++tried) {
    last_cntlid_ = last_cntlid_ >= kCntlidMax ? std::uint16_t{1}
                                              : static_cast<std::uint16_t>(last_cntlid_ + 1);
    if (controller(last_cntlid_) == nullptr) return last_cntlid_;
  }
  return 0;
}

void Subsystem::add(Controller& controller) {
  controllers_.push_back(&controller);
}

void Subsystem::remove(Controller& controller) {
  std::erase(controllers_, &controller);
}

Controller* Subsystem::controller(std::uint16_t cntlid) const {
  const auto found = std::ranges::find_if(
      controllers_, [cntlid](const Controller* c) { return c->cntlid() == cntlid; });
  return found == controllers_.end() ? nullptr : *found;
}

}  // namespace nvmf::controller
