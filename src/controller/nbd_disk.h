// A namespace whose blocks are an NBD server's export: whatever nbdkit or qemu-nbd can open. Beside
// libnbd (nbd_link.h) this has the policy: which connection a request takes, and what happens when
// the server is lost.
//
// kNbdLinks connections where the server says that it may be used by several (can_multi_conn: a
// flush on one covers what was answered on all), otherwise one.
//
// The server is lost when a connection ends, or when a request has had no answer for the request
// timeout: then the connection is reset. It is made again, at once and then less and less often.
// What waits meanwhile is not answered:
// - Reads, flushes and what was never sent are sent on the next connection; a write whose FUA takes
//   a flush after it begins again.
// - A write (zeroes too) that was sent and not answered may have been executed, may never be, or
//   may still be under way in the server: NBD has no way to ask and no fence (DATA_SAFETY §1). It
//   is sent again: it is idempotent, and as long as the host has no answer, all writes that overlap
//   it are unordered with it, so it does no harm whenever it is executed, even twice. The harm
//   begins with its answer: then the host may write the blocks anew, and a first copy that is
//   executed after that would undo it. So the second copy is sent, and the host answered, only when
//   the first one cannot be executed any more: kNbdQuiesceClosed after a server ended the
//   connection, which a dying one does last, and a living one (qemu-nbd) perhaps while the request
//   is on its way to the disk; kNbdQuiesceSilent after a connection of which nothing was heard, the
//   time that hosts wait for a controller that says nothing (CQT). That is an assumption about the
//   server's own storage, as CQT is. The same holds for ending it with any other status.
// - After kNbdPatience without any connection, whatever waits ends as EAGAIN, Namespace Not Ready
//   without Do Not Retry, and so does what comes, each after kNbdNotReadyPace, until a server is
//   back. So does what has waited as long for a server that lets us connect and answers nothing,
//   and, at once, what has been sent kNbdSendsMax times and only ever ended the connection: it
//   would end it for all others again and again.
// A server that is back must have an export that is not smaller, with the same right to write and
// blocks that are not larger; otherwise it counts as not there, and the log says why.
//
// What the server has answered and not flushed may be lost with it: in the cache of a machine that
// lost its power, or of a server process that was killed (qcow2's metadata). volatile_cache() says
// so beforehand. A controller that loses its cache would lose the association too; here the server
// may have kept everything, and ending associations would not tell hosts more. So: it is logged,
// and with fail_unflushed the next flush (or FUA write) after such a loss fails once with EIO, as
// fsync does on a disk whose writes were lost.
//
// Loop's thread only. Operations may complete inside submit().
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/disk.h"
#include "controller/limits.h"
#include "controller/nbd_link.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

struct NbdDiskOptions {
  NbdUri uri;
  /// Of the namespace. None: 512, or the smallest that the server takes.
  std::optional<std::uint32_t> block_bytes;
  Duration request_timeout = kNbdRequestTimeout;
  bool fail_unflushed = false;
  std::function<void(const std::string&)> log;  // a line per loss and return; may be empty
};

class NbdDisk final : public Disk, private NbdLinkUser {
 public:
  NbdDisk(transport::Loop& loop, NbdDiskOptions options);
  ~NbdDisk() override;

  /// Connects. `opened` is called once, not inside, in kNbdConnectTimeout at most; after an error,
  /// which names the server and what is wrong, only the destructor may be called. In the call it
  /// may not be destroyed. Nothing else may be used before.
  void open(std::move_only_function<void(Result<void>)> opened);
  [[nodiscard]] std::uint32_t block_bytes() const { return block_bytes_; }

  [[nodiscard]] std::uint64_t size_bytes() const override { return size_bytes_; }
  [[nodiscard]] bool read_only() const override { return export_.read_only; }
  [[nodiscard]] bool volatile_cache() const override { return export_.flush; }
  [[nodiscard]] std::uint32_t block_bytes_min() const override;
  void submit(DiskOp& op) override;
  void extents(DiskExtents& query) override;
  void abandon(DiskOp& op, Abandoned why) override;
  void abandon_extents(DiskExtents& query) override;
  bool take_back(DiskOp& op) override;
  /// At most what the export had when the server was last connected to: NBD does not say that an
  /// export has grown, before the next connection.
  Result<void> resize(std::uint64_t size_bytes) override;

 private:
  enum class State : std::uint8_t { waiting, held, sent };
  /// An operation under way, and the request that it is at.
  struct Job : NbdRequest {
    DiskOp* op = nullptr;          // nullptr: the job is free
    DiskExtents* query = nullptr;  // then op is &as_read
    DiskOp as_read;
    State state = State::waiting;
    bool flushing = false;             // the flush that makes a write durable
    bool abandoned = false;            // ends instead of being sent again
    std::uint32_t losses = 0;          // connections that ended instead of an answer
    std::uint64_t done_bytes = 0;      // pieces that are through
    std::uint64_t flush_mark = 0;      // writes_ when its flush was sent
    Instant since{};                   // submitted
    Instant safe_at{};                 // held: no copy of it can be executed any more
    std::optional<Instant> lost_at{};  // it was sent, and lost with its connection
  };
  struct Slot {
    std::unique_ptr<NbdLink> link;
    std::unique_ptr<transport::Timer> retry;
    Duration pause{};
    Instant ready_at{};
  };

  void nbd_ready(NbdLink& link) override;
  void nbd_completed(NbdRequest& request) override;
  void nbd_lost(NbdLink& link, std::vector<NbdRequest*> unanswered, const Error& why,
                bool by_server) override;

  [[nodiscard]] Result<void> first_look(const NbdExport& seen);
  [[nodiscard]] Result<void> same_export(const NbdExport& seen) const;
  void first_ready(NbdLink& link);
  void use_several(const NbdLink& first);
  Slot& add_slot();
  Slot& slot_of(const NbdLink& link);
  [[nodiscard]] bool connected() const;
  void try_again(Slot& slot);
  void server_lost(const Error& why);

  [[nodiscard]] bool prepare(Job& job) const;
  [[nodiscard]] bool prepare_zeroes(Job& job) const;
  void answer(DiskExtents& query, const std::vector<NbdRun>& runs) const;
  [[nodiscard]] bool needs_flush(const Job& job) const;
  void pump();
  [[nodiscard]] NbdLink* least_busy() const;
  Job& take_job(DiskOp& op);
  void finish(Job& job, int error);
  [[nodiscard]] int outcome(const Job& job, int error);
  /// Whether it is to end rather than to be sent, and as what; 0: it is to be sent.
  [[nodiscard]] int verdict(const Job& job) const;
  void tick();
  void arm_tick();
  void log(const std::string& line) const;

  transport::Loop& loop_;
  NbdDiskOptions options_;
  std::move_only_function<void(Result<void>)> opened_;  // until open() has ended
  NbdExport export_;  // of the first connection, with the size of the last
  std::uint32_t block_bytes_ = 512;
  std::uint64_t size_bytes_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::deque<std::unique_ptr<Job>> jobs_;  // as many as there were ever operations at once
  std::vector<Job*> free_;
  std::deque<Job*> waiting_;  // to be sent, the next one first
  std::vector<Job*> held_;
  std::optional<Instant> down_since_;  // no link is ready
  std::string last_refusal_;           // logged once, not at each attempt
  std::uint64_t writes_ = 0;           // answered, and not durable by themselves
  std::uint64_t flushed_ = 0;          // of them, covered by a flush
  bool owes_error_ = false;            // fail_unflushed: the next flush fails
  Instant last_answer_{};
  bool pumping_ = false;
  std::vector<std::byte> zeroes_;
  transport::Timer tick_;
};

}  // namespace nvmf::controller
