#include "host/queue_link.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "host/awaited_command.h"
#include "nvme/admin.h"

namespace nvmf::host {

namespace {

double seconds(Duration d) {
  return std::chrono::duration<double>(d).count();
}

}  // namespace

QueueLink::QueueLink(transport::Loop& loop, std::uint16_t qid)
    : loop_(loop), qid_(qid), gate_(loop), opened_(loop), ended_(loop) {}

QueueLink::~QueueLink() {
  NVMF_CHECK(qpair_ == nullptr || state_ == State::ended);
}

Task<Result<void>> QueueLink::open(transport::Endpoint to, transport::ConnectOptions options,
                                   tcp::HostQpairOptions qpair, Duration timeout) {
  const Gate::Pass inside(gate_);
  if (state_ == State::ended) co_return std::unexpected(reason_);
  NVMF_CHECK(state_ == State::idle);
  state_ = State::opening;
  slots_ = qpair.queue_entries - 1;
  transport::HostQpairEvents& events = *this;  // a private base
  qpair_ = std::make_unique<tcp::HostQpair>(qpair, events);
  // The loop bounds the connecting itself by the same time and knows better what to say then.
  transport::Timer deadline(loop_.timers(), [this, timeout] {
    end(Error{fmt::format("{} did not answer the ICReq within {:g} s: it accepts connections but "
                          "says nothing; check that an NVMe/TCP target runs there",
                          describe(), seconds(timeout)),
              ETIMEDOUT});
  });
  deadline.arm(loop_.now() + timeout + std::chrono::milliseconds(100));
  qpair_->start(loop_, to, options);
  co_await opened_;
  if (state_ == State::live) co_return Result<void>{};
  co_return std::unexpected(reason_);
}

Task<Result<CommandOutcome>> QueueLink::run(nvme::Sqe sqe, transport::DataDirection direction,
                                            std::span<std::byte> data, Duration timeout) {
  const Gate::Pass inside(gate_);
  if (!live()) {
    if (ended()) co_return std::unexpected(reason_);
    co_return fail(fmt::format("{} is not open", describe()), ENOTCONN);
  }
  if (data.size() > transport::kCommandBytesMax) {
    co_return fail(fmt::format("{} bytes are more than the {} that one command may carry",
                               data.size(), transport::kCommandBytesMax),
                   EINVAL);
  }
  AwaitedCommand command(sqe, direction, data);
  std::optional<transport::Timer> deadline;
  if (timeout > Duration::zero()) {
    deadline.emplace(loop_.timers(), [this, &sqe, timeout] {
      end(Error{
          fmt::format("{} did not answer the command {} within {:g} s; try its log, and `ping` for "
                      "the network",
                      describe(), nvme::opcode_name(sqe, qid_ == 0), seconds(timeout)),
          ETIMEDOUT});
    });
    deadline->arm(loop_.now() + timeout);
  }
  if (free_slots() == 0) {
    // None left, or an end under way, whose reason is then the better answer.
    if (running_ >= slots_)
      co_return fail(describe() + " takes no more commands now; try again later", EBUSY);
    co_await wait_ended();
    co_return std::unexpected(reason_);
  }
  ++running_;
  co_await SubmitAwaiter{*qpair_, command};
  --running_;
  deadline.reset();
  if (command.delivery == transport::Delivery::answered) {
    co_return CommandOutcome{command.cqe, command.received_bytes};
  }
  // The reason of the queue's end follows the commands' completions.
  co_await wait_ended();
  co_return std::unexpected(reason_);
}

void QueueLink::end(Error reason) {
  if (state_ == State::ended) return;
  if (qpair_ != nullptr) return qpair_->end(std::move(reason));
  state_ = State::ended;
  reason_ = std::move(reason);
  ended_.fire();
}

void QueueLink::finish() {
  if (state_ == State::live) {
    qpair_->finish();
  } else {
    end(Error{describe() + " was closed before it was open", ECANCELED});
  }
}

Task<void> QueueLink::wait_ended() {
  const Gate::Pass inside(gate_);
  if (state_ != State::ended) co_await ended_;
}

Task<void> QueueLink::close(Error reason) {
  end(std::move(reason));
  co_await wait_ended();
  co_await gate_.wait_empty();
}

std::string QueueLink::describe() const {
  if (qpair_ != nullptr) return qpair_->describe();
  return qid_ == 0 ? "the admin queue" : fmt::format("queue {}", qid_);
}

void QueueLink::on_ready() {
  state_ = State::live;
  opened_.fire();
}

void QueueLink::on_ended(const Error& reason) {
  state_ = State::ended;
  reason_ = reason;
  opened_.fire();
  on_down(reason);
  ended_.fire();
}

}  // namespace nvmf::host
