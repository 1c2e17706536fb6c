// Opens the NBD namespaces of configurations, which takes a while: a target makes its namespaces at
// once, of disks that are there. Loop's thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "controller/config.h"
#include "nvme/result.h"
#include "transport/loop.h"

namespace nvmf::controller {

class NbdOpener {
 public:
  using Done = std::move_only_function<void(Result<std::vector<NamespaceConfig>>)>;

  /// `log` gets a line for each loss and return of a server, as long as its disk lives.
  NbdOpener(transport::Loop& loop, std::function<void(const std::string&)> log);
  /// What is being opened is given up; nobody is called back any more.
  ~NbdOpener();
  NbdOpener(const NbdOpener&) = delete;
  NbdOpener& operator=(const NbdOpener&) = delete;

  /// Whether any of them must be opened first.
  static bool needed(const std::vector<NamespaceConfig>& wanted);
  /// `done` is called once, not inside, with the same configurations; those of NBD have a factory
  /// that gives their disk, once, and the block size that they will have. The error is the first
  /// one's, and then nothing stays open.
  void open(std::vector<NamespaceConfig> wanted, Done done);

 private:
  struct Batch;
  void advance(Batch& batch);
  void opened(Batch& batch, std::size_t index, Result<void> outcome);
  void end(Batch& batch);

  transport::Loop& loop_;
  std::function<void(const std::string&)> log_;
  std::vector<std::unique_ptr<Batch>> batches_;
};

}  // namespace nvmf::controller
