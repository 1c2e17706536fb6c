// What both ends of an NVMe/TCP queue pair have in common: the stream, the two halves of the PDU
// machinery, and how a connection ends.
//
// A connection ends in one of four ways: the peer's bytes break the protocol (we send a TermReq,
// §3.5, and wait a little for the peer to close), the peer says TermReq or closes, the stream
// fails, or our owner calls end()/finish(). All lead to closed(), once, when no buffer is in use
// any more.
#pragma once

#include <memory>
#include <string>

#include "transport/stream.h"
#include "transport/tcp/pdu_receiver.h"
#include "transport/tcp/pdu_sender.h"

namespace nvmf::tcp {

class QpairCore : public transport::StreamUser, protected PduHandler {
 public:
  // transport::StreamUser, for the stream only
  void on_open(transport::Stream& stream) final;
  std::size_t recv_vectors(std::span<iovec> out) final { return receiver_.recv_vectors(out); }
  void recv_advance(std::size_t bytes) final;
  std::size_t send_vectors(std::span<iovec> out) final;
  void send_advance(std::size_t bytes) final;
  void on_eof() final;
  void on_closed(const Error& reason) final;

 protected:
  explicit QpairCore(bool controller);
  ~QpairCore();

  // The role's part.
  virtual void opened() = 0;
  /// Turns what waits into PDUs while sender_.room().
  virtual void pump() = 0;
  virtual void released(SendTag tag) = 0;
  /// The end of a batch of received or released bytes.
  virtual void batch_done() = 0;
  /// What to say when the peer closes without a word.
  virtual std::string eof_text() const = 0;
  /// "... of the peer's PDU" sentence for a protocol error that we found.
  virtual std::string violation_text(const PduError& error) const = 0;
  /// Last. `reason` is the first one that was given.
  virtual void closed(const Error& reason) = 0;

  /// The stream has more to send. At most one virtual call per batch.
  void wake();
  void end_with(Error reason);
  void finish_with(Error reason);
  /// A TermReq of the peer's.
  void term_req_received();
  [[nodiscard]] bool ending() const { return ending_; }
  /// FIN or RST of the peer's has been seen.
  [[nodiscard]] bool peer_has_closed() const { return peer_closed_; }
  [[nodiscard]] std::string peer_name() const;
  [[nodiscard]] std::string local_name() const;

  std::unique_ptr<transport::Stream> stream_;
  PduReceiver receiver_;
  PduSender sender_;
  PduFormat format_;
  /// TermReq payload lands here; parsed when it is complete.
  std::array<std::byte, kTermReqBytesMax> term_req_data_{};
  TermReq term_req_;
  bool term_req_arriving_ = false;  // it has a payload

 private:
  void fatal(const PduError& error);

  bool controller_;
  bool open_ = false;
  bool ending_ = false;
  bool finishing_ = false;
  bool woken_ = false;
  bool peer_closed_ = false;
  Error reason_;
  std::string peer_;
  std::string local_;
};

}  // namespace nvmf::tcp
