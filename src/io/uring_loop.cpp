// The backend on io_uring: one ring for waiting and for files.
//
// Readiness comes from multishot polls, and sockets are then read and written with direct system
// calls, not through the ring (docs in socket_stream.h). The ring is made disabled and enabled by
// the thread that runs the loop, which is then the only one that touches it: until that moment
// everything waits in lists of our own.
#include <fcntl.h>
#include <fmt/format.h>
#include <liburing.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "io/backend.h"
#include "io/file.h"
#include "nvme/check.h"

namespace nvmf::io {

using transport::FileOp;

namespace {

constexpr unsigned kSubmissions = 256;
/// Polls and file operations that can report in one turn; beyond it the kernel keeps them itself
/// (IORING_FEAT_NODROP) and ends a multishot poll, which is then armed again.
constexpr unsigned kCompletions = 4096;

/// What a completion belongs to, in the low bits of its user_data.
/// For a file operation the tag also tells which call it was, since the next step may be another.
enum Tag : std::uint64_t { kTagPoll = 0, kTagNobody = 1, kTagFile = 2, kTagMask = 7 };
static_assert(kTagFile + static_cast<std::uint64_t>(FileStep::Call::punch) <= kTagMask);
static_assert(alignof(FileOp) > kTagMask);

std::uint64_t poll_data(PollTable::Key key) {
  return (std::uint64_t{key.generation} << 32) | (std::uint64_t{key.index} << 3) | kTagPoll;
}

PollTable::Key poll_key(std::uint64_t data) {
  return {static_cast<std::uint32_t>(data) >> 3, static_cast<std::uint32_t>(data >> 32)};
}

class UringBackend final : public Backend {
 public:
  UringBackend() = default;
  ~UringBackend() override {
    if (made_) ::io_uring_queue_exit(&ring_);
  }
  Result<void> start();

  [[nodiscard]] const char* name() const override { return "io_uring"; }
  Result<void> add(Pollable& user, int fd, std::uint32_t events, Trigger trigger) override;
  void remove(Pollable& user) override;
  void collect(Duration timeout) override;
  void dispatch() override;
  void submit(FileOp& op) override;
  [[nodiscard]] std::size_t files_under_way() const override { return files_under_way_; }

 private:
  void enable();
  io_uring_sqe* entry();
  void arm_polls();
  void start_files();
  void completed(std::uint64_t data, std::int32_t result, std::uint32_t flags);
  void polled(PollTable::Key key, std::int32_t result, std::uint32_t flags);
  void prepare(FileOp& op);

  io_uring ring_{};
  bool made_ = false;
  bool enabled_ = false;
  PollTable table_;
  std::vector<PollTable::Key> to_arm_;
  FileOp* files_first_ = nullptr;  // submitted by the user and not yet to the kernel, in order
  FileOp* files_last_ = nullptr;
  std::size_t files_under_way_ = 0;
};

Result<void> UringBackend::start() {
  // The best the kernel takes: completions are then made only when we ask, on our thread (6.1),
  // or at least without interrupting it (5.19).
  constexpr unsigned kBase = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  int code = -EINVAL;
  for (const unsigned flags : {kBase | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                               kBase | IORING_SETUP_COOP_TASKRUN, kBase}) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = kCompletions;
    code = ::io_uring_queue_init_params(kSubmissions, &ring_, &params);
    if (code == -EINVAL) continue;
    if (code < 0) break;
    made_ = true;
    // RSRC_TAGS came with Linux 5.13, as multishot polls did.
    constexpr unsigned kNeeded = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS;
    if ((params.features & kNeeded) == kNeeded) return {};
    code = -ENOSYS;
    break;
  }
  return fail(fmt::format("io_uring cannot be used here: {} ({}); NVMF_IO=epoll does without it",
                          std::strerror(-code), ::strerrorname_np(-code)),
              -code);
}

void UringBackend::enable() {
  // May fail only if it is enabled already, or by a mistake of ours.
  // liburing 2.3 declares io_uring_enable_rings() and forgot to export it.
  NVMF_CHECK(::syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr,
                       0) == 0);
  enabled_ = true;
}

io_uring_sqe* UringBackend::entry() {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    if (io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_)) return sqe;
    // Full: hand over what is there. EBUSY and EAGAIN are the kernel short of room or memory;
    // running its pending work is what frees some.
    if (::io_uring_submit(&ring_) <= 0) ::io_uring_get_events(&ring_);
  }
  check_failed("the submission ring never drains", __FILE_NAME__, __LINE__);
}

Result<void> UringBackend::add(Pollable& user, int fd, std::uint32_t events, Trigger trigger) {
  if (::fcntl(fd, F_GETFD) < 0) {
    return fail(fmt::format("cannot wait for a file descriptor: {}", std::strerror(errno)), errno);
  }
  to_arm_.push_back(table_.insert(user, fd, events, trigger));
  return {};
}

void UringBackend::remove(Pollable& user) {
  if (!table_.contains(user)) return;
  const PollTable::Key key = table_.key(user);
  const bool armed = table_.find(key)->armed;
  table_.erase(user);
  if (!armed) return;
  // At once: until the poll is gone the ring keeps the file open, and close() would not close.
  io_uring_sqe* sqe = entry();
  ::io_uring_prep_poll_remove(sqe, poll_data(key));
  ::io_uring_sqe_set_data64(sqe, kTagNobody);
  ::io_uring_submit_and_get_events(&ring_);
}

void UringBackend::arm_polls() {
  for (const PollTable::Key key : to_arm_) {
    PollTable::Slot* slot = table_.find(key);
    if (slot == nullptr || slot->armed) continue;
    io_uring_sqe* sqe = entry();
    // A multishot poll reports changes, a single one that is armed again each turn reports states.
    if (slot->trigger == Trigger::edge) {
      ::io_uring_prep_poll_multishot(sqe, slot->fd, slot->events);
    } else {
      ::io_uring_prep_poll_add(sqe, slot->fd, slot->events);
    }
    ::io_uring_sqe_set_data64(sqe, poll_data(key));
    slot->armed = true;
  }
  to_arm_.clear();
}

void UringBackend::submit(FileOp& op) {
  ++files_under_way_;
  op.next = nullptr;
  (files_last_ != nullptr ? files_last_->next : files_first_) = &op;
  files_last_ = &op;
}

void UringBackend::start_files() {
  files_last_ = nullptr;
  for (FileOp* op = std::exchange(files_first_, nullptr); op != nullptr;) {
    FileOp* next = std::exchange(op->next, nullptr);
    prepare(*op);
    op = next;
  }
}

void UringBackend::prepare(FileOp& op) {
  const FileStep step = FileStep::next(op);
  io_uring_sqe* sqe = entry();
  const auto length = static_cast<unsigned>(step.length_bytes);
  switch (step.call) {
    case FileStep::Call::none:
      ::io_uring_prep_nop(sqe);
      break;
    case FileStep::Call::read:
      ::io_uring_prep_read(sqe, step.fd, step.data, length, step.offset_bytes);
      break;
    case FileStep::Call::write:
      ::io_uring_prep_write(sqe, step.fd, step.data, length, step.offset_bytes);
      sqe->rw_flags = step.flags;
      break;
    case FileStep::Call::sync:
      ::io_uring_prep_fsync(sqe, step.fd, IORING_FSYNC_DATASYNC);
      break;
    case FileStep::Call::zero_range:
    case FileStep::Call::punch:
      ::io_uring_prep_fallocate(sqe, step.fd, step.flags, static_cast<off_t>(step.offset_bytes),
                                static_cast<off_t>(step.length_bytes));
      break;
  }
  ::io_uring_sqe_set_data64(sqe, reinterpret_cast<std::uintptr_t>(&op) |
                                     (kTagFile + static_cast<std::uint64_t>(step.call)));
}

void UringBackend::collect(Duration timeout) {
  if (!enabled_) enable();
  arm_polls();
  start_files();
  if (timeout == Duration::zero()) {
    ::io_uring_submit_and_get_events(&ring_);
    return;
  }
  io_uring_cqe* first = nullptr;
  if (timeout < Duration::zero()) {
    ::io_uring_submit_and_wait(&ring_, 1);
    return;
  }
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  __kernel_timespec ts{whole.count(), (timeout - whole).count()};
  ::io_uring_submit_and_wait_timeout(&ring_, &first, 1, &ts, nullptr);
}

void UringBackend::dispatch() {
  // Only what was there at the start: who reports again while being served waits for its turn.
  for (unsigned left = ::io_uring_cq_ready(&ring_); left > 0; --left) {
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_peek_cqe(&ring_, &cqe) != 0) return;
    const std::uint64_t data = cqe->user_data;
    const std::int32_t result = cqe->res;
    const std::uint32_t flags = cqe->flags;
    ::io_uring_cqe_seen(&ring_, cqe);
    completed(data, result, flags);
  }
}

void UringBackend::completed(std::uint64_t data, std::int32_t result, std::uint32_t flags) {
  const std::uint64_t tag = data & kTagMask;
  if (tag == kTagNobody) return;
  if (tag == kTagPoll) return polled(poll_key(data), result, flags);
  auto& op = *reinterpret_cast<FileOp*>(data & ~std::uint64_t{kTagMask});
  const auto call = static_cast<FileStep::Call>(tag - kTagFile);
  if (!FileStep::finish(op, call, result)) return prepare(op);
  --files_under_way_;
  op.complete(op);
}

void UringBackend::polled(PollTable::Key key, std::int32_t result, std::uint32_t flags) {
  PollTable::Slot* slot = table_.find(key);
  if (slot == nullptr) return;  // removed since
  if ((flags & IORING_CQE_F_MORE) == 0) {
    slot->armed = false;
    // Not if polling itself failed, which would fail again at once; the user hears an error then.
    if (result >= 0) to_arm_.push_back(key);
  }
  slot->user->on_ready(result >= 0 ? static_cast<std::uint32_t>(result) : EPOLLERR);
}

}  // namespace

Result<std::unique_ptr<Backend>> make_uring_backend() {
  auto backend = std::make_unique<UringBackend>();
  if (auto started = backend->start(); !started) return std::unexpected(started.error());
  return backend;
}

}  // namespace nvmf::io
