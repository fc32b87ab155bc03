// Adds the slides of a review to the open QuPath project, each with its outlines.
// QuPath 0.5 or 0.6: create or open a project; Automate > Script editor; open this file; Run.
import java.awt.image.BufferedImage
import qupath.lib.gui.commands.ProjectCommands
import qupath.lib.images.ImageData
import qupath.lib.images.servers.ImageServerProvider
import qupath.lib.io.PathIO

def folder = new File('FOLDER')  // this folder, as this computer sees it

def project = getProject()
if (project == null) {
    println 'Create or open a project first.'
    return
}
def lines = new File(folder, 'slides.tsv').readLines('UTF-8').collect { it.split('\t', -1) as List }
def head = lines.remove(0)
lines.collect { [head, it].transpose().collectEntries() }.findAll { it.outlines }.each { row ->
    def support = ImageServerProvider.getPreferredUriImageSupport(BufferedImage, row.path)
    if (!support?.builders) {
        println "${row.slide}: QuPath cannot open ${row.path}"
        return
    }
    def entry = project.addImage(support.builders[0])
    entry.setImageName(row.slide)
    def data = entry.readImageData()
    data.setImageType(ImageData.ImageType.BRIGHTFIELD_H_E)
    data.hierarchy.addObjects(PathIO.readObjects(new File(folder, row.outlines)))
    entry.saveImageData(data)
    entry.setThumbnail(ProjectCommands.getThumbnailRGB(data.server))
    println row.slide
}
project.syncChanges()
getQuPath()?.refreshProject()
