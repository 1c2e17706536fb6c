#include "controller/namespace.h"

#include <fmt/format.h>

#include <utility>

#include "controller/cached_disk.h"
#include "controller/faulty_disk.h"
#include "controller/file_disk.h"
#include "controller/memory_disk.h"
#include "controller/system.h"
#include "nvme/endian.h"

namespace nvmf::controller {

namespace {

constexpr std::uint64_t kUuidSalt = 1;
constexpr std::uint64_t kNguidSalt = 2;

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

std::vector<std::uint32_t> block_sizes(const Namespace& ns) {
  // A disk of the caller's may have blocks of its own kind: those stay.
  if (ns.block_bytes != 512 && ns.block_bytes != 4096) return {ns.block_bytes};
  if (ns.disk->size_bytes() % 4096 != 0) return {512};
  if (ns.disk->block_bytes_min() > 512) return {4096};
  return {512, 4096};
}

NamespaceMaker::NamespaceMaker(transport::Loop& loop, const TargetConfig* config, Faults* faults)
    : loop_(loop), config_(config), faults_(faults) {}

nvme::Uuid NamespaceMaker::fresh_id() {
  if (config_ == nullptr || !config_->uuid_seed) return nvme::random_uuid();
  return as_uuid(stable_bytes(fmt::format("{}", ++made_ids_), *config_->uuid_seed), 8);
}

Result<std::unique_ptr<Disk>> NamespaceMaker::open(const NamespaceConfig& wanted) {
  switch (wanted.kind) {
    case NamespaceConfig::Kind::nbd:
      if (wanted.factory == nullptr) {
        return fail(fmt::format("The NBD namespace {} was not opened before it was to be used",
                                wanted.path),
                    EINVAL);
      }
      return (*wanted.factory)();
    case NamespaceConfig::Kind::custom:
      if (wanted.factory == nullptr || !*wanted.factory) {
        return fail("A custom namespace needs a factory for its disk", EINVAL);
      }
      return (*wanted.factory)();
    case NamespaceConfig::Kind::file: {
      auto disk = FileDisk::open(loop_, wanted.path, wanted.block_bytes, wanted.read_only);
      if (!disk) return std::unexpected(std::move(disk.error()));
      return std::move(*disk);
    }
    case NamespaceConfig::Kind::memory:
      break;
  }
  if (wanted.size_bytes == 0 || wanted.size_bytes % wanted.block_bytes != 0) {
    return fail(fmt::format("A memory namespace of {} bytes is not possible: give a multiple of "
                            "the block size of {} bytes",
                            wanted.size_bytes, wanted.block_bytes),
                EINVAL);
  }
  if (wanted.volatile_cache) {
    auto disk = CachedDisk::create(wanted.size_bytes);
    if (!disk) return std::unexpected(std::move(disk.error()));
    return std::move(*disk);
  }
  auto disk = MemoryDisk::create(wanted.size_bytes);
  if (!disk) return std::unexpected(std::move(disk.error()));
  return std::move(*disk);
}

Result<std::unique_ptr<Namespace>> NamespaceMaker::make(const NamespaceConfig& wanted,
                                                        std::uint32_t nsid,
                                                        const std::string& subnqn) {
  auto made = std::make_unique<Namespace>();
  made->nsid = nsid;
  made->block_bytes = wanted.block_bytes;
  made->ana_group = wanted.ana_group;
  made->write_protected = wanted.read_only;
  auto disk = open(wanted);
  if (!disk) return std::unexpected(std::move(disk.error()));
  made->disk = std::move(*disk);
  if (config_ != nullptr && config_->wrap_disk) {
    made->disk = config_->wrap_disk(std::move(made->disk), nsid, subnqn);
  }
  if (faults_ != nullptr) {
    made->disk = std::make_unique<FaultyDisk>(
        loop_, *faults_, std::move(made->disk),
        FaultyDisk::Place{.subnqn = subnqn, .nsid = nsid, .block_bytes = wanted.block_bytes});
  }
  if (wanted.uuid) {
    made->uuid = *wanted.uuid;
    made->nguid = stable_bytes(nvme::format_uuid(*wanted.uuid), kNguidSalt);
  } else if (wanted.kind == NamespaceConfig::Kind::file) {
    const std::string identity = file_identity(wanted.path) + '@' + subnqn;
    made->uuid = as_uuid(stable_bytes(identity, kUuidSalt), 8);
    made->nguid = stable_bytes(identity, kNguidSalt);
  } else if (wanted.kind == NamespaceConfig::Kind::nbd) {
    // Whoever serves it is taken at their word that it is always the same disk.
    const std::string identity = wanted.path + '@' + subnqn;
    made->uuid = as_uuid(stable_bytes(identity, kUuidSalt), 8);
    made->nguid = stable_bytes(identity, kNguidSalt);
  } else {
    // Its content is new with every start, so it is another disk: hosts must be able to tell.
    made->uuid = fresh_id();
    made->nguid = fresh_id();
  }
  return made;
}

}  // namespace nvmf::controller
