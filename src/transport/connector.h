// Who makes a connection in the place of a Loop: something that is to stand between a protocol and
// its connection, seeing or changing what passes.
#pragma once

#include <memory>

#include "transport/loop.h"

namespace nvmf::transport {

class Connector {
 public:
  /// As loop.connect(), on that loop's thread; any number of loops at the same time.
  virtual std::unique_ptr<Stream> connect(Loop& loop, const Endpoint& to,
                                          const ConnectOptions& options, StreamUser& user) = 0;

 protected:
  ~Connector() = default;
};

}  // namespace nvmf::transport
