// Through which faces a connection's namespaces are served (frontends/frontend.h), and where users
// find them there: which faces there are is decided here, and nowhere else.
//
// Everything happens on the control loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "connect_options.h"
#include "connection_texts.h"
#include "control/runtime_dir.h"
#include "frontends/buffer_shares.h"
#include "frontends/frontend.h"
#include "transport/loop.h"

namespace nvmf::tools {

/// What a face is made from. All of it outlives the faces.
struct FaceContext {
  const ConnectOptions& options;
  const control::RuntimeDir& runtime;
  const std::string& name;  // the connection's
  /// The reactors that serve: devices come in this order.
  std::vector<transport::Loop*> loops;
  /// How long requests that are under way may take once stop() was called.
  Duration grace{};
  /// To be called, not inside a call of the face's, when somebody outside has ended one: says how.
  std::function<void(const std::string&)> on_gone;
  /// What a namespace that is served is known by: the same in every process that serves the same
  /// disk, now and later, and nothing else's.
  std::function<std::string(std::uint32_t nsid)> identity = {};
  /// How long writes may be held, at the start or after a loss; nothing: for ever.
  std::optional<Duration> writes_held_at_most = {};
  /// What there is to read about the connection.
  std::vector<ConnectionText> texts = {};
  /// Memory for each face's requests; make_faces() says how much.
  frontends::BufferShares buffers = {};
};

/// A frontend, and what this program has to know of it beside that. Destroyed after its frontend
/// has stopped (or before it was started), when the loops do not run any more.
class Face {
 public:
  virtual ~Face() = default;

  [[nodiscard]] virtual frontends::Frontend& frontend() = 0;
  /// Begins to serve; once, after it was told of the namespaces that there are. `on_started` is
  /// called once, also inside, with the sentence if it could not; not if stop() comes before it.
  /// Namespaces may come, change and go meanwhile.
  virtual void start(std::function<void(Result<void>)> on_started) = 0;
  /// One of kPlaceKinds (tool_places.h).
  [[nodiscard]] virtual std::string_view kind() const = 0;
  /// Where users find a namespace, once started: to be printed, the one that serves most first.
  /// Nothing for one that it does not have (now), or could not make a place for.
  [[nodiscard]] virtual std::vector<std::string> places(const host::BlockInfo& ns) const = 0;
  /// For the environment of --run's command; `first` is the first namespace.
  [[nodiscard]] virtual std::map<std::string, std::string> variables(
      const host::BlockInfo& first) const = 0;
  /// Not so: it was ended from outside.
  [[nodiscard]] virtual bool serving() const { return true; }
  /// A sentence for each thing of it that somebody has open and loses at an end now. Takes a
  /// moment.
  [[nodiscard]] virtual std::vector<std::string> held() const { return {}; }
  /// Adds what there is to tell of it to the answer of the verb "status".
  virtual void describe(nlohmann::json& /*status*/) const {}
  /// The process ends at once, by force: removes what would stay behind. Calls that return at once
  /// only.
  virtual void remove_traces() {}
};

/// The faces that the options ask for; at least one. Among them they divide the process's memory
/// for requests.
[[nodiscard]] std::vector<std::unique_ptr<Face>> make_faces(FaceContext context);

/// All faces of a connection as one.
class Faces {
 public:
  explicit Faces(std::vector<std::unique_ptr<Face>> faces) : faces_(std::move(faces)) {}

  void attached(const frontends::Disk& disk);
  void detached(std::uint32_t nsid);
  void changed(const frontends::Disk& disk);
  /// As Face::start(): `on_started` comes when all have started, or the first could not.
  void start(std::function<void(Result<void>)> on_started);
  /// Once: stops all at the same time. `on_stopped` follows, not inside.
  void stop(std::function<void()> on_stopped);
  void hurry();
  /// At least one is.
  [[nodiscard]] bool serving() const;

  /// Adds "uris" (always), and what other kinds of places there are, to what is told of `ns`; empty
  /// lists if it is not attached.
  void add_places(nlohmann::json& to, const host::BlockInfo& ns) const;
  /// The first place of each face, with spaces between them. For one that is attached.
  [[nodiscard]] std::string line(const host::BlockInfo& ns) const;
  /// All the other places of it.
  [[nodiscard]] std::vector<std::string> not_in_line(const host::BlockInfo& ns) const;
  [[nodiscard]] std::map<std::string, std::string> variables(const host::BlockInfo& first) const;
  [[nodiscard]] std::vector<std::string> held() const;
  void describe(nlohmann::json& status) const;
  void remove_traces();

 private:
  void one_started(const Result<void>& how);

  std::vector<std::unique_ptr<Face>> faces_;
  std::set<std::uint32_t> attached_;
  std::function<void(Result<void>)> on_started_;
  std::function<void()> on_stopped_;
  std::size_t starting_ = 0;
  std::size_t stopping_ = 0;
};

}  // namespace nvmf::tools
