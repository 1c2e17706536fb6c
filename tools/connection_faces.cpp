#include "connection_faces.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "face_fuse.h"
#include "face_kernel.h"
#include "face_nbd.h"
#include "tool_places.h"

namespace nvmf::tools {

using nlohmann::json;

std::vector<std::unique_ptr<Face>> make_faces(FaceContext context) {
  frontends::FacesThere there = {.fuse = !context.options.fuse.empty(),
                                 .kernel = context.options.nbd_device.has_value()};
  // NBD needs nothing of the system, so it is there if nothing else was asked for.
  there.nbd = !context.options.nbd.empty() || (!there.fuse && !there.kernel);
  context.buffers = frontends::buffer_shares(there);
  std::vector<std::unique_ptr<Face>> faces;
  if (there.fuse) faces.push_back(make_fuse_face(context));
  if (there.kernel) faces.push_back(make_kernel_face(context));
  if (there.nbd) faces.push_back(make_nbd_face(context));
  return faces;
}

void Faces::attached(const frontends::Disk& disk) {
  attached_.insert(disk.info.nsid);
  for (const auto& face : faces_) face->frontend().attached(disk);
}

void Faces::detached(std::uint32_t nsid) {
  attached_.erase(nsid);
  for (const auto& face : faces_) face->frontend().detached(nsid);
}

void Faces::changed(const frontends::Disk& disk) {
  for (const auto& face : faces_) face->frontend().changed(disk);
}

void Faces::start(std::function<void(Result<void>)> on_started) {
  on_started_ = std::move(on_started);
  starting_ = faces_.size();
  for (const auto& face : faces_) {
    if (!on_started_) return;  // one could not
    face->start([this](const Result<void>& how) { one_started(how); });
  }
}

void Faces::one_started(const Result<void>& how) {
  --starting_;
  if (!on_started_ || (how && starting_ != 0)) return;
  std::exchange(on_started_, nullptr)(how);
}

void Faces::stop(std::function<void()> on_stopped) {
  on_started_ = nullptr;
  on_stopped_ = std::move(on_stopped);
  stopping_ = faces_.size();
  for (const auto& face : faces_) {
    face->frontend().stop([this] {
      if (--stopping_ == 0) std::exchange(on_stopped_, nullptr)();
    });
  }
}

void Faces::hurry() {
  for (const auto& face : faces_) face->frontend().hurry();
}

bool Faces::serving() const {
  return std::ranges::any_of(faces_, [](const auto& face) { return face->serving(); });
}

void Faces::add_places(json& to, const host::BlockInfo& ns) const {
  to[std::string(kUris)] = json::array();
  for (const auto& face : faces_) {
    json& list = to[std::string(face->kind())];
    if (list.is_null()) list = json::array();
    if (!attached_.contains(ns.nsid)) continue;
    for (std::string& place : face->places(ns)) list.push_back(std::move(place));
  }
}

std::string Faces::line(const host::BlockInfo& ns) const {
  std::string line;
  for (const auto& face : faces_) {
    const std::vector<std::string> places = face->places(ns);
    if (places.empty()) continue;
    if (!line.empty()) line += ' ';
    line += places.front();
  }
  return line;
}

std::vector<std::string> Faces::not_in_line(const host::BlockInfo& ns) const {
  std::vector<std::string> others;
  for (const auto& face : faces_) {
    const std::vector<std::string> places = face->places(ns);
    for (std::size_t i = 1; i < places.size(); ++i) others.push_back(places[i]);
  }
  return others;
}

std::map<std::string, std::string> Faces::variables(const host::BlockInfo& first) const {
  std::map<std::string, std::string> all;
  for (const auto& face : faces_) all.merge(face->variables(first));
  return all;
}

std::vector<std::string> Faces::held() const {
  std::vector<std::string> all;
  for (const auto& face : faces_) {
    for (std::string& sentence : face->held()) all.push_back(std::move(sentence));
  }
  return all;
}

void Faces::describe(json& status) const {
  for (const auto& face : faces_) face->describe(status);
}

void Faces::remove_traces() {
  for (const auto& face : faces_) face->remove_traces();
}

}  // namespace nvmf::tools
