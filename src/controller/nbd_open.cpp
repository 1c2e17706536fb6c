#include "controller/nbd_open.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "controller/limits.h"
#include "controller/nbd_disk.h"

namespace nvmf::controller {

struct NbdOpener::Batch {
  Batch(transport::Loop& loop, NbdOpener& opener)
      : next_turn(loop.timers(), [this, &opener] { opener.advance(*this); }) {}

  std::vector<NamespaceConfig> wanted;
  std::vector<std::unique_ptr<NbdDisk>> disks;  // by index; nullptr where there is none
  Done done;
  std::size_t next = 0;
  std::size_t opening = 0;
  std::optional<Error> failed;
  transport::Timer next_turn;
};

NbdOpener::NbdOpener(transport::Loop& loop, std::function<void(const std::string&)> log)
    : loop_(loop), log_(std::move(log)) {}

NbdOpener::~NbdOpener() = default;

bool NbdOpener::needed(const std::vector<NamespaceConfig>& wanted) {
  return std::ranges::any_of(wanted, [](const NamespaceConfig& one) {
    return one.kind == NamespaceConfig::Kind::nbd && one.factory == nullptr;
  });
}

void NbdOpener::open(std::vector<NamespaceConfig> wanted, Done done) {
  batches_.push_back(std::make_unique<Batch>(loop_, *this));
  Batch& batch = *batches_.back();
  batch.disks.resize(wanted.size());
  batch.wanted = std::move(wanted);
  batch.done = std::move(done);
  batch.next_turn.arm(loop_.now());
}

void NbdOpener::advance(Batch& batch) {
  while (!batch.failed && batch.next < batch.wanted.size() && batch.opening < kNbdOpeningMax) {
    const std::size_t index = batch.next++;
    const NamespaceConfig& config = batch.wanted[index];
    if (config.kind != NamespaceConfig::Kind::nbd || config.factory != nullptr) continue;
    auto uri = NbdUri::parse(config.path);
    if (!uri) {
      batch.failed = std::move(uri.error());
      break;
    }
    NbdDiskOptions options{
        .uri = std::move(*uri), .fail_unflushed = config.fail_unflushed, .log = log_};
    if (config.block_given) options.block_bytes = config.block_bytes;
    if (config.timeout_seconds != 0) {
      options.request_timeout = std::chrono::seconds(config.timeout_seconds);
    }
    batch.disks[index] = std::make_unique<NbdDisk>(loop_, std::move(options));
    ++batch.opening;
    batch.disks[index]->open(
        [this, &batch, index](Result<void> outcome) { opened(batch, index, std::move(outcome)); });
  }
  if (batch.failed || batch.opening == 0) end(batch);
}

/// Inside the disk, which must outlive the call.
void NbdOpener::opened(Batch& batch, std::size_t index, Result<void> outcome) {
  --batch.opening;
  batch.next_turn.arm(loop_.now());
  if (!outcome) {
    if (!batch.failed) batch.failed = std::move(outcome.error());
    return;
  }
  NamespaceConfig& config = batch.wanted[index];
  config.block_bytes = batch.disks[index]->block_bytes();
  auto disk = std::make_shared<std::unique_ptr<Disk>>(std::move(batch.disks[index]));
  config.factory = std::make_shared<const DiskFactory>(
      [disk = std::move(disk)]() -> Result<std::unique_ptr<Disk>> {
        if (*disk == nullptr) return fail("This NBD namespace is in use already", EBUSY);
        return std::move(*disk);
      });
}

void NbdOpener::end(Batch& batch) {
  const auto found = std::ranges::find(batches_, &batch, &std::unique_ptr<Batch>::get);
  const std::unique_ptr<Batch> ended = std::move(*found);
  batches_.erase(found);
  Done done = std::move(ended->done);
  if (ended->failed) {
    const Error why = std::move(*ended->failed);
    ended->disks.clear();
    return done(std::unexpected(why));
  }
  done(std::move(ended->wanted));
}

}  // namespace nvmf::controller
