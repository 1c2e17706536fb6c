#include "face_fuse.h"

#include <fmt/format.h>
#include <sys/mount.h>

#include <utility>

#include "frontends/fuse/file_system.h"
#include "io/pages.h"
#include "tool_places.h"

namespace nvmf::tools {

namespace {

class FuseFace final : public Face {
 public:
  explicit FuseFace(const FaceContext& context)
      : mount_point_(context.options.fuse),
        on_gone_(context.on_gone),
        file_system_(context.loops, options(context)) {}

  frontends::Frontend& frontend() override { return file_system_; }

  void start(std::function<void(Result<void>)> on_started) override {
    auto mounted = file_system_.mount();
    mounted_ = mounted.has_value();
    on_started(std::move(mounted));
  }

  [[nodiscard]] std::string_view kind() const override { return kFiles; }

  [[nodiscard]] std::vector<std::string> places(const host::BlockInfo& ns) const override {
    if (!mounted_) return {};
    return {fmt::format("{}/{}", mount_point_, ns.name)};
  }

  [[nodiscard]] std::map<std::string, std::string> variables(
      const host::BlockInfo& /*first*/) const override {
    return {{"mountpoint", mount_point_}};
  }

  [[nodiscard]] bool serving() const override { return mounted_; }

  /// Only where we may do it ourselves. A helper would be waited for; what stays behind then is
  /// taken away by the next one that mounts there.
  void remove_traces() override {
    if (mounted_) ::umount2(mount_point_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
  }

 private:
  fuse::FileSystemOptions options(const FaceContext& context) {
    fuse::FileSystemOptions options;
    options.mount = {.mount_point = context.options.fuse,
                     .source = context.name,
                     .read_only = context.options.params.read_only,
                     .allow_other = context.options.allow_other};
    for (const ConnectionText& text : context.texts)
      options.texts.push_back({text.name, text.text});
    options.grace = context.grace;
    options.buffer_bytes = context.buffers.fuse;
    options.discard = &io::discard_pages;
    options.on_unmounted = [this] {
      mounted_ = false;
      on_gone_(fmt::format("{} was unmounted", mount_point_));
    };
    return options;
  }

  const std::string mount_point_;
  std::function<void(const std::string&)> on_gone_;
  bool mounted_ = false;
  fuse::FileSystem file_system_;
};

}  // namespace

std::unique_ptr<Face> make_fuse_face(const FaceContext& context) {
  return std::make_unique<FuseFace>(context);
}

}  // namespace nvmf::tools
